"""Multi-head attention as a layer, and what a mask of tokens means to attention."""

from __future__ import annotations

import numpy as np

from minilm import backend, ops

from .cache import KeyValueCache
from .layers import Dropout, Linear
from .module import Module

__all__ = ["MultiHeadAttention", "attention_mask_arguments"]


def attention_mask_arguments(attention_mask, batch: int, length: int, device: str = "cpu") -> dict:
    """What a mask (B, S) of 1 for real and 0 for padding tokens means to `ops.scaled_dot_product_attention`.

    Padding on the right alone becomes `key_lengths`, which the fused kernel understands; anything else a boolean mask.
    The mask is looked at on the host, so that is where it had best come from; what it means goes to `device`.
    Raises ValueError for another shape, or other numbers (0 and -inf, to be added to scores, mean the contrary).

    >>> attention_mask_arguments(np.array([[1, 1, 0], [1, 1, 1]]), 2, 3)
    {'key_lengths': array([2, 3])}
    >>> attention_mask_arguments([[0, 1, 1]], 1, 3)["attn_mask"].shape
    (1, 1, 1, 3)
    """
    if attention_mask is None:
        return {}
    values = backend.to_numpy(getattr(attention_mask, "_data", attention_mask))
    mask = values.astype(bool)
    if mask.shape != (batch, length):
        raise ValueError(f"attention_mask must be ({batch}, {length}), one entry a key; got {mask.shape}")
    if not (mask == values).all():
        raise ValueError("attention_mask holds 1 for tokens to see and 0 for padding; there are other numbers in it")
    if mask.all():
        return {}
    lengths = mask.sum(axis=1)
    if (mask == (np.arange(length) < lengths[:, None])).all():
        return {"key_lengths": backend.to_device(lengths, device)}
    return {"attn_mask": backend.to_device(mask[:, None, None, :], device)}


class MultiHeadAttention(Module):
    """out_proj of attention between q_proj(x) and k_proj, v_proj of x or of `memory` (Vaswani et al. 2017).

    `n_kv_head` < `n_head` shares each key and value head among several query heads (Ainslie et al. 2023).

    >>> import numpy as np
    >>> MultiHeadAttention(8, 2)(np.ones((1, 5, 8), np.float32)).shape
    (1, 5, 8)
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
        past = 0 if cache is None else len(cache)
        seen = attention_mask_arguments(attention_mask, k.shape[0], past + k.shape[2], k.device)
        seen["causal"] = self.causal
        if cache is not None:
            k, v, seen = cache.attend(layer, k, v, seen)
        dropout = self.attention_dropout if self.training else 0.0
        out = ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **seen)
        return self.dropout(self.out_proj(ops.join_heads(out)))

    def extra_repr(self) -> str:
        return (
            f"n_head={self.n_head}, n_kv_head={self.n_kv_head}, causal={self.causal}, dropout={self.attention_dropout}"
        )
