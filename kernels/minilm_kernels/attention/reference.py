"""Attention in plain array code: what every other implementation has to compute."""

from __future__ import annotations

import math

from ..registry import array_module, register

__all__ = ["attention", "attention_backward"]


@register("attention", name="reference")
def attention(q, k, v, *, causal, scale, key_lengths):
    xp = array_module(q)
    if k.shape[2] == 0:
        return xp.zeros_like(q), xp.full(q.shape[:3], -math.inf, q.dtype)
    scores = _masked_scores(q, k, causal, scale, key_lengths)
    largest = _zero_where_masked(scores.max(axis=-1))
    weights = xp.exp(scores - largest[..., None])
    total = weights.sum(axis=-1)
    divisor = xp.where(total == 0, xp.ones_like(total), total)
    out = weights @ v[:, :, None] / divisor[..., None]
    logsumexp = xp.where(total == 0, xp.full_like(total, -math.inf), largest + xp.log(divisor))
    return out.reshape(q.shape), logsumexp.reshape(q.shape[:3])


@register("attention_backward", name="reference")
def attention_backward(g, q, k, v, out, logsumexp, *, causal, scale, key_lengths, into):
    xp, Hk = array_module(q), k.shape[1]
    g, queries, out = _by_key_head(g, Hk), _by_key_head(q, Hk), _by_key_head(out, Hk)
    scores = _masked_scores(q, k, causal, scale, key_lengths)
    weights = xp.exp(scores - _zero_where_masked(logsumexp.reshape(scores.shape[:4]))[..., None])
    d_weights = g @ v[:, :, None].swapaxes(-1, -2)
    d_scores = weights * (d_weights - (g * out).sum(axis=-1, keepdims=True)) * scale
    dq = (d_scores @ k[:, :, None]).reshape(q.shape)
    dk = (d_scores.swapaxes(-1, -2) @ queries).sum(axis=2)
    dv = (weights.swapaxes(-1, -2) @ g).sum(axis=2)
    if into is None:
        return dq, dk, dv
    for array, gradient in zip(into, (dq, dk, dv)):
        array[...] = gradient
    return into


def _masked_scores(q, k, causal, scale, key_lengths):
    """scale * q k^T, -inf at the keys that a query may not see: (B, Hk, H / Hk, T, S)."""
    xp, (T, S) = array_module(q), (q.shape[2], k.shape[2])
    scores = _by_key_head(q, k.shape[1]) @ k[:, :, None].swapaxes(-1, -2) * scale
    keys = xp.arange(S)
    masked = xp.zeros(scores.shape, bool)
    if causal:
        masked |= keys > xp.arange(T)[:, None] + (S - T)
    if key_lengths is not None:
        masked |= keys >= key_lengths[:, None, None, None, None]
    return xp.where(masked, xp.full_like(scores, -math.inf), scores)


def _by_key_head(x, Hk):
    """(B, H, T, D) as (B, Hk, H / Hk, T, D): the heads that share a key head stand together."""
    B, H, T, D = x.shape
    return x.reshape(B, Hk, H // Hk, T, D)


def _zero_where_masked(x):
    """Zero for -inf, so that a row masked whole has exp(-inf - 0) = 0 and not exp(-inf + inf) = NaN."""
    xp = array_module(x)
    return xp.where(x == -math.inf, xp.zeros_like(x), x)
