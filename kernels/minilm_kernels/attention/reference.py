"""Attention in plain array code: what every other implementation has to compute."""

from __future__ import annotations

import math

from .. import checks
from ..dropout.reference import dropout
from ..into import placed
from ..products import matmul
from ..registry import array_module, register
from .visible import row_ranges

__all__ = ["attention", "attention_backward"]


@register("attention", name="reference")
def attention(
    q, k, v, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
):  # fmt: skip
    xp = array_module(q)
    if k.shape[2] == 0:
        return xp.zeros_like(q), xp.full(q.shape[:3], -math.inf, q.dtype)
    ranges = row_ranges(
        q, k.shape[2], causal=causal, window=window, key_lengths=key_lengths, cu_seqlens=cu_seqlens,
        cu_seqlens_k=cu_seqlens_k
    )  # fmt: skip
    _, _, scores = _scores(q, k, scale, soft_cap, bias, alibi_slopes, score_mod, ranges[2])
    scores = xp.where(_visible(xp, ranges, k.shape[2], block_mask), scores, xp.full_like(scores, -math.inf))
    largest = _zero_where_masked(scores.max(axis=-1))
    weights = xp.exp(scores - largest[..., None])
    total = weights.sum(axis=-1)
    divisor = xp.where(total == 0, xp.ones_like(total), total)
    weights = weights / divisor[..., None] * _kept(weights, dropout_p, seed)
    largest, total, divisor = (_statistic(x) for x in (largest, total, divisor))
    logsumexp = xp.where(total == 0, xp.full_like(total, -math.inf), largest + xp.log(divisor))
    return matmul(weights, _for_queries(v, q)), logsumexp


@register("attention_backward", name="reference")
def attention_backward(
    g, q, k, v, out, logsumexp, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens,
    cu_seqlens_k, dropout_p, seed, score_mod, block_mask, bias_gradient, into
):  # fmt: skip
    xp, S = array_module(q), k.shape[2]
    ranges = row_ranges(
        q, S, causal=causal, window=window, key_lengths=key_lengths, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
    )
    capped, biased, scores = _scores(q, k, scale, soft_cap, bias, alibi_slopes, score_mod, ranges[2])
    seen = _visible(xp, ranges, S, block_mask)
    exponents = xp.where(seen, scores - _zero_where_masked(logsumexp)[..., None], -math.inf)
    weights = xp.exp(exponents).astype(q.dtype, copy=False)
    kept = _kept(weights, dropout_p, seed)
    d_weights = matmul(g, _for_queries(v, q).swapaxes(-1, -2)) * kept
    d_scores = weights * (d_weights - (g * out).sum(axis=-1, keepdims=True))
    if score_mod is not None:
        from .mods import apply_score_mod_gradient

        d_scores = d_scores * xp.where(weights == 0, xp.zeros_like(biased), apply_score_mod_gradient(biased, score_mod))
    d_bias = _sum_to(d_scores, bias.shape) if bias_gradient else None
    if soft_cap is not None:
        d_scores = d_scores * (1 - (capped / soft_cap) ** 2)
    d_scores = d_scores * scale
    dq = matmul(d_scores, _for_queries(k, q))
    dk = _by_key_head(matmul(d_scores.swapaxes(-1, -2), q), k)
    dv = _by_key_head(matmul((weights * kept).swapaxes(-1, -2), g), v)
    return placed((dq, dk, dv, d_bias), into)


def _scores(q, k, scale, soft_cap, bias, alibi_slopes, score_mod, position):
    """The scores (B, H, T, S) capped, with what is added to them, and after `score_mod`."""
    xp = array_module(q)
    capped = matmul(q, _for_queries(k, q).swapaxes(-1, -2)) * scale
    if soft_cap is not None:
        capped = soft_cap * xp.tanh(capped / soft_cap)
    biased = capped if bias is None else capped + bias
    if alibi_slopes is not None:
        distance = xp.abs(position[..., None] - xp.arange(k.shape[2]))[:, None]
        biased = biased - alibi_slopes[:, :, None, None] * distance.astype(q.dtype)
    if score_mod is None:
        return capped, biased, biased
    from .mods import apply_score_mod

    return capped, biased, apply_score_mod(biased, score_mod)


def _visible(xp, ranges, S, block_mask):
    """(B or 1, H or 1, T, S) booleans: which keys a query sees."""
    first, stop, _ = (part[:, None, :, None] for part in ranges)
    keys = xp.arange(S)
    seen = (keys >= first) & (keys < stop)
    return seen if block_mask is None else seen & xp.asarray(block_mask.dense())


def _kept(weights, p, seed):
    """What dropout multiplies each weight by: 0 or 1 / (1 - p); rows are counted in whole fours of keys."""
    if p == 0:
        return 1
    xp, S = array_module(weights), weights.shape[-1]
    ones = xp.ones((*weights.shape[:-1], -(-S // 4) * 4), weights.dtype)
    return dropout(ones, p=p, seed=seed, offset=0)[..., :S]


def _for_queries(x, q):
    """Keys or values (B, Hk, S, D) for each query head, (B, H, S, D)."""
    return array_module(x).repeat(x, q.shape[1] // x.shape[1], axis=1)


def _by_key_head(x, k):
    """(B, H, S, D) summed over the query heads that share a key head: (B, Hk, S, D)."""
    B, H, S, D = x.shape
    return x.reshape(B, k.shape[1], H // k.shape[1], S, D).sum(axis=2)


def _statistic(x):
    """In float32 what would have 16 bits: the backward pass takes exponentials of it."""
    return x.astype("float32") if checks.is_half(x.dtype) else x


def _sum_to(x, shape):
    """x summed over the axes along which an array of `shape`, of as many axes, is repeated."""
    axes = tuple(i for i, (n, wide) in enumerate(zip(shape, x.shape)) if n == 1 and wide != 1)
    return x.sum(axis=axes, keepdims=True) if axes else x


def _zero_where_masked(x):
    """Zero for -inf, so that a row masked whole has exp(-inf - 0) = 0 and not exp(-inf + inf) = NaN."""
    xp = array_module(x)
    return xp.where(x == -math.inf, xp.zeros_like(x), x)
