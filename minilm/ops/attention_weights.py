"""Attention from simple operations: the weights for looking at, and what the fused kernel stands for."""

from __future__ import annotations

import math

import minilm_kernels as kernels
from minilm_kernels.attention.visible import row_ranges, window_sides

from minilm.autograd import Tensor
from minilm.backend import array_module

from .arithmetic import where
from .elementwise import astype, tanh
from .indexing import repeat
from .linalg import matmul
from .normalize import softmax

__all__ = ["attention_weights"]


def attention_weights(
    q,
    k,
    causal: bool = False,
    attn_mask=None,
    scale: float | None = None,
    *,
    window=None,
    soft_cap: float | None = None,
    alibi_slopes=None,
    key_lengths=None,
    cu_seqlens=None,
    cu_seqlens_k=None,
    block_mask=None,
):
    """The weights themselves, (..., H, T, S), for looking at: softmax(scale q k^T) with what `attention` may be given.

    The settings are those of `scaled_dot_product_attention`, before dropout.

    >>> import numpy as np
    >>> x = np.ones((1, 2, 3, 4), np.float32)
    >>> attention_weights(x, x, causal=True)[0, 0].round(2)
    array([[1.  , 0.  , 0.  ],
           [0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]], dtype=float32)
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if k.ndim > 2 and k.shape[-3] != q.shape[-3]:
        k = repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    scores = matmul(q, k.swapaxes(-1, -2)) * scale
    if soft_cap is not None:
        scores = tanh(scores / soft_cap) * soft_cap
    xp = array_module(getattr(q, "_data", q))
    cu_seqlens_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
    key_lengths, cu_seqlens, cu_seqlens_k = (
        None if x is None else xp.asarray(getattr(x, "_data", x)) for x in (key_lengths, cu_seqlens, cu_seqlens_k)
    )
    queries = getattr(q, "_data", q)
    queries = queries.reshape(math.prod(q.shape[:-3]), *((1,) * (3 - q.ndim)), *q.shape[-3:])
    first, stop, position = row_ranges(
        queries, k.shape[-2], causal=causal, window=None if window is None else window_sides(window),
        key_lengths=key_lengths, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
    )  # fmt: skip
    keys = xp.arange(k.shape[-2])
    seen = (keys >= first[..., None]) & (keys < stop[..., None])
    if q.ndim > 3:
        lead = q.shape[:-3] if len(seen) > 1 else (1,) * (q.ndim - 3)
        seen = seen.reshape(*lead, 1, *seen.shape[1:])
    if block_mask is not None:
        seen = seen & xp.asarray(block_mask.dense())
    mask = getattr(attn_mask, "_data", attn_mask)
    if mask is not None and mask.dtype.kind == "b":
        seen = seen & mask
    elif mask is not None:
        scores = scores + astype(attn_mask, scores.dtype)
    if alibi_slopes is not None:
        slopes = xp.asarray(getattr(alibi_slopes, "_data", alibi_slopes), scores.dtype)[..., None, None]
        scores = scores - slopes * xp.abs(position[0][:, None] - keys).astype(scores.dtype)
    return softmax(where(seen, scores, -math.inf), -1)


def composed_attention(q, k, v, bias, settings: dict):
    """What the kernel computes of (B, H, T, D) and (B, Hk, S, D), from simple operations, for higher derivatives."""
    if settings.get("score_mod") is not None:
        raise RuntimeError(
            "attention with a score_mod has a first derivative only; its gradient can't be differentiated"
        )
    settings = {name: value for name, value in settings.items() if name != "score_mod"}
    p, seed = settings.pop("dropout_p", 0.0), settings.pop("seed", 0)
    weights = attention_weights(q, k, attn_mask=bias, **settings)
    if p:  # the very weights that the kernel drops: it counts keys in whole fours
        xp, S = array_module(weights.data if isinstance(weights, Tensor) else weights), k.shape[2]
        ones = xp.ones((*weights.shape[:3], -(-S // 4) * 4), weights.dtype)
        weights = weights * kernels.dropout(ones, p=p, seed=seed)[..., :S]
    if v.shape[1] != q.shape[1]:
        v = repeat(v, q.shape[1] // v.shape[1], axis=1)
    return matmul(weights, v)
