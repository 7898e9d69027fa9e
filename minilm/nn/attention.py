"""Multi-head attention as a layer, and the cache of keys and values that decoding keeps."""

from __future__ import annotations

import numpy as np

from minilm import backend, ops
from minilm.autograd import Tensor

from .layers import Dropout, Linear
from .module import Module

__all__ = ["KeyValueCache", "MultiHeadAttention", "attention_mask_arguments"]


def attention_mask_arguments(attention_mask, batch: int, length: int) -> dict:
    """What a mask (B, S) of 1 for real and 0 for padding tokens means to `ops.scaled_dot_product_attention`.

    Padding on the right alone becomes `key_lengths`, which the fused kernel understands; anything else a boolean mask.
    Raises ValueError for another shape, or other numbers (0 and -inf, to be added to scores, mean the contrary).
    """
    if attention_mask is None:
        return {}
    given = getattr(attention_mask, "_data", attention_mask)
    values = backend.to_numpy(given)
    mask = values.astype(bool)
    if mask.shape != (batch, length):
        raise ValueError(f"attention_mask must be ({batch}, {length}), one entry a key; got {mask.shape}")
    if not (mask == values).all():
        raise ValueError("attention_mask holds 1 for tokens to see and 0 for padding; there are other numbers in it")
    if mask.all():
        return {}
    lengths = mask.sum(axis=1)
    if (mask == (np.arange(length) < lengths[:, None])).all():
        return {"key_lengths": lengths}
    return {"attn_mask": backend.array_module(given).asarray(mask[:, None, None, :])}


class KeyValueCache:
    """Keys and values of the tokens so far, for each layer, in buffers that grow by doubling.

    `append(layer, k, v)` stores (B, Hk, T, D) and returns all of that layer's keys and values, (B, Hk, S, D), without
    history: it raises RuntimeError where gradients are recorded. `capacity` tokens get their room at once.
    """

    def __init__(self, n_layer: int, capacity: int = 0) -> None:
        self.capacity = capacity
        self._keys: list = [None] * n_layer
        self._values: list = [None] * n_layer
        self._lengths = [0] * n_layer

    def __len__(self) -> int:
        """How many tokens the cache holds."""
        return self._lengths[-1]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens to those of `layer`, and returns them all."""
        if k.requires_grad or v.requires_grad:
            raise RuntimeError(
                "a cache of keys and values carries no gradients; decode under minilm.no_grad(), train without a cache"
            )
        start, stop = self._lengths[layer], self._lengths[layer] + k.shape[2]
        self._keys[layer] = self._stored(self._keys[layer], k.data, start, stop)
        self._values[layer] = self._stored(self._values[layer], v.data, start, stop)
        self._lengths[layer] = stop
        return Tensor(self._keys[layer][:, :, :stop]), Tensor(self._values[layer][:, :, :stop])

    def _stored(self, buffer, new, start: int, stop: int):
        if buffer is not None and buffer.shape[:2] + buffer.shape[3:] != new.shape[:2] + new.shape[3:]:
            raise ValueError(f"the cache holds keys and values like {buffer.shape}; got some like {new.shape}")
        if buffer is None or buffer.shape[2] < stop:
            batch, heads, _, width = new.shape
            room = max(self.capacity, stop if buffer is None else 2 * stop)
            larger = backend.array_module(new).empty((batch, heads, room, width), new.dtype)
            if buffer is not None:
                larger[:, :, :start] = buffer[:, :, :start]
            buffer = larger
        buffer[:, :, start:stop] = new
        return buffer

    def select(self, rows) -> None:
        """Keeps the batch rows given, in that order (repeats allowed): for beam search and for finished rows."""
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                if buffer is not None:
                    buffers[layer] = buffer[rows]


class MultiHeadAttention(Module):
    """out_proj of attention between q_proj(x) and k_proj, v_proj of x or of `memory` (Vaswani et al. 2017).

    `n_kv_head` < `n_head` shares each key and value head among several query heads (Ainslie et al. 2023).
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        n_kv_head: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
        generator: backend.Generator | None = None,
    ):
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if d_model % n_head or n_head % n_kv_head:
            raise ValueError(
                f"d_model must be a multiple of n_head, and n_head of n_kv_head; got {d_model}, {n_head}, {n_kv_head}"
            )
        width = d_model // n_head
        self.n_head, self.n_kv_head, self.causal, self.attention_dropout = n_head, n_kv_head, causal, dropout
        self.q_proj = Linear(d_model, n_head * width, bias, generator)
        self.k_proj = Linear(d_model, n_kv_head * width, bias, generator)
        self.v_proj = Linear(d_model, n_kv_head * width, bias, generator)
        self.out_proj = Linear(n_head * width, d_model, bias, generator)
        self.dropout = Dropout(dropout)

    def forward(self, x, memory=None, attention_mask=None, cache: KeyValueCache | None = None, layer: int = 0):
        """x (B, T, C); `memory` (B, S, C) to attend to instead of x; `attention_mask` (B, S) of 1 and 0 over the keys.

        With a `cache` x are new tokens, which attend to those in place `layer` of the cache as well. Raises ValueError
        for a cache beside a memory, which does not grow.
        """
        if memory is not None and cache is not None:
            raise ValueError("a cache is for tokens that come one by one; keys and values of a memory are all there")
        source = x if memory is None else memory
        q = ops.split_heads(self.q_proj(x), self.n_head)
        k, v = (ops.split_heads(project(source), self.n_kv_head) for project in (self.k_proj, self.v_proj))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        out = ops.scaled_dot_product_attention(
            q,
            k,
            v,
            self.causal,
            dropout_p=self.attention_dropout if self.training else 0.0,
            **attention_mask_arguments(attention_mask, k.shape[0], k.shape[2]),
        )
        return self.dropout(self.out_proj(ops.join_heads(out)))

    def extra_repr(self) -> str:
        return (
            f"n_head={self.n_head}, n_kv_head={self.n_kv_head}, causal={self.causal}, dropout={self.attention_dropout}"
        )
