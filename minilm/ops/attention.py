"""Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)."""

from __future__ import annotations

import math

import minilm_kernels as kernels

from minilm.autograd import Array, op
from minilm.backend import Generator, array_module

from .dropout import dropout
from .elementwise import astype, where
from .indexing import repeat
from .linalg import matmul
from .normalize import softmax
from .shape import split

__all__ = [
    "attention_weights", "join_heads", "packed_self_attention", "scaled_dot_product_attention", "split_heads",
]  # fmt: skip


@op(view=True)
def split_heads(x: Array, n_head):
    """(B, T, H D) to (B, H, T, D), the H = `n_head` heads side by side in the last axis; no copy."""
    return x.reshape(*x.shape[:2], n_head, x.shape[2] // n_head).swapaxes(1, 2)


@split_heads.gradient
def _(g):
    return join_heads(g)


@op(view=True)
def join_heads(x: Array):
    """(B, H, T, D) to (B, T, H D), the reverse of `split_heads`; no copy of what the attention kernel returns."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


@join_heads.gradient
def _(g, x_shape):
    return split_heads(g, x_shape[1])


@op(keeps=("logsumexp",))
def attention(q: Array, k: Array, v: Array, causal, scale, key_lengths):
    return kernels.attention(q, k, v, causal=causal, scale=scale, key_lengths=key_lengths)


@attention.gradient
def _(g, q, k, v, y, logsumexp, causal, scale, key_lengths):
    return kernels.attention_backward(g, q, k, v, y, logsumexp, causal=causal, scale=scale, key_lengths=key_lengths)


@attention.composition
def _(q, k, v, causal, scale, key_lengths):
    return _composed(q, k, v, None, 0.0, None, causal, scale, key_lengths)


@op(keeps=("heads", "logsumexp"))
def _packed(qkv: Array, n_head, causal, scale, key_lengths):
    q, k, v = _parts(qkv, n_head)
    out, logsumexp = kernels.attention(q, k, v, causal=causal, scale=scale, key_lengths=key_lengths)
    return join_heads(out), out, logsumexp


@_packed.gradient
def _(g, qkv, heads, logsumexp, n_head, causal, scale, key_lengths):
    into = array_module(qkv).empty(qkv.shape, qkv.dtype)  # one array, not three to be put together
    kernels.attention_backward(
        split_heads(g, n_head), *_parts(qkv, n_head), heads, logsumexp,
        causal=causal, scale=scale, key_lengths=key_lengths, into=_parts(into, n_head),
    )  # fmt: skip
    return into


@_packed.composition
def _(qkv, n_head, causal, scale, key_lengths):
    q, k, v = (split_heads(part, n_head) for part in split(qkv, 3, axis=2))
    return join_heads(_composed(q, k, v, None, 0.0, None, causal, scale, key_lengths))


def _parts(qkv, n_head):
    """Views of (B, T, 3 H D) as q, k and v, each (B, H, T, D)."""
    B, T, width = qkv.shape
    parts = qkv.reshape(B, T, 3, n_head, width // (3 * n_head))
    return tuple(parts[:, :, i].swapaxes(1, 2) for i in range(3))


def packed_self_attention(
    qkv, n_head: int, causal: bool = False, *, dropout_p: float = 0.0, generator=None, **settings
):
    """Self-attention from one array to one: the projection that makes q, k and v goes in, the heads come out joined.

    qkv (B, T, 3 H D) holds q, k and v side by side, each with its H = `n_head` heads side by side; the result is
    (B, T, H D). The same as `scaled_dot_product_attention` of the parts, with its settings, in fewer steps.

    >>> import numpy as np
    >>> packed_self_attention(np.ones((1, 3, 24), np.float32), 2, causal=True).shape
    (1, 3, 8)
    """
    if qkv.ndim != 3 or qkv.shape[2] % (3 * n_head):
        raise ValueError(f"qkv is (B, T, 3 H D) with H = {n_head} heads; got shape {tuple(qkv.shape)}")
    if dropout_p or settings.get("attn_mask") is not None:
        q, k, v = (split_heads(part, n_head) for part in split(qkv, 3, axis=2))
        y = scaled_dot_product_attention(q, k, v, causal, dropout_p=dropout_p, generator=generator, **settings)
        return join_heads(y)
    scale = settings.get("scale")
    scale = math.sqrt(3 * n_head / qkv.shape[2]) if scale is None else float(scale)
    return _packed(qkv, n_head, causal, scale, settings.get("key_lengths"))


def scaled_dot_product_attention(
    q,
    k,
    v,
    causal: bool = False,
    *,
    attn_mask=None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    key_lengths=None,
    generator: Generator | None = None,
):
    """softmax(scale q k^T) v: for each query a mean of the values, weighed by how well their keys match it.

    q (..., H, T, D), k and v (..., Hk, S, D) where Hk divides H (each key head then serves H / Hk query heads).
    `causal` lets query t see keys up to t + S - T; `key_lengths` (B,) hides the keys from that place on, in each
    batch row; `attn_mask`, broadcastable to (..., H, T, S), is True where a key may be seen, or a number added to the
    scores. `scale` is 1 / sqrt(D) by default. A query that sees no key gets zeros. Without `attn_mask` and
    `dropout_p` the fused kernel runs, which never makes the (T, S) matrix.

    >>> import numpy as np
    >>> x = np.ones((1, 2, 3, 4), np.float32)
    >>> scaled_dot_product_attention(x, x, x, causal=True).shape
    (1, 2, 3, 4)
    """
    if not q.ndim == k.ndim == v.ndim or q.ndim < 2:
        raise ValueError(
            f"attention needs q, k and v with equally many axes, at least 2; got {q.ndim}, {k.ndim} and {v.ndim}"
        )
    if not q.shape[:-3] == k.shape[:-3] == v.shape[:-3]:
        raise ValueError(f"attention needs q, k and v with the same batch axes; got {q.shape}, {k.shape} and {v.shape}")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if attn_mask is not None or dropout_p:
        return _composed(q, k, v, attn_mask, dropout_p, generator, causal, scale, key_lengths)
    if q.ndim == 4:
        return attention(q, k, v, causal, scale, key_lengths)
    lead = tuple(q.shape[:-3])
    four = [x.reshape((math.prod(lead), *((1,) if x.ndim == 2 else ()), *x.shape[len(lead) :])) for x in (q, k, v)]
    return attention(*four, causal, scale, key_lengths).reshape((*q.shape[:-1], v.shape[-1]))


def attention_weights(q, k, causal=False, attn_mask=None, scale=None, key_lengths=None):
    """The weights themselves, (..., H, T, S), for looking at: softmax(scale q k^T) under the masks given."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if k.ndim > 2 and k.shape[-3] != q.shape[-3]:
        k = repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    scores = matmul(q, k.swapaxes(-1, -2)) * scale
    keep = _visible(q, k, causal, key_lengths)
    if attn_mask is not None:
        mask = getattr(attn_mask, "_data", attn_mask)
        if mask.dtype.kind == "b":
            keep = mask if keep is None else keep & mask
        else:
            scores = scores + astype(attn_mask, scores.dtype)
    return softmax(scores if keep is None else where(keep, scores, -math.inf), -1)


def _composed(q, k, v, attn_mask, dropout_p, generator, causal, scale, key_lengths):
    """The same function from simple operations, with everything that the kernel does not do."""
    weights = attention_weights(q, k, causal, attn_mask, scale, key_lengths)
    weights = dropout(weights, dropout_p, generator=generator)
    if v.ndim > 2 and v.shape[-3] != q.shape[-3]:
        v = repeat(v, q.shape[-3] // v.shape[-3], axis=-3)
    return matmul(weights, v)


def _visible(q, k, causal, key_lengths):
    """(B, 1, T, S) or (T, S) booleans: which keys a query may see; None for all."""
    xp = array_module(getattr(q, "_data", q))
    length, keys = q.shape[-2], k.shape[-2]
    keep = None
    if causal:
        keep = xp.arange(keys) <= xp.arange(length)[:, None] + (keys - length)
    if key_lengths is not None:
        lengths = xp.asarray(getattr(key_lengths, "_data", key_lengths))
        real = xp.arange(keys) < lengths.reshape(*q.shape[:-3], *(1,) * min(q.ndim, 3))
        keep = real if keep is None else keep & real
    return keep
