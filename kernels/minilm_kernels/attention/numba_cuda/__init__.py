"""Attention on CUDA as one would first write it: tiles in shared memory, the online softmax, a thread a few scores.

The readable rung of the ladder on CUDA, in `numba.cuda`: no tensor cores, no shuffles between threads, and so slower
than `../cuda.py` by a multiple, but all of it can be stepped through on a machine without a GPU (`../../simt.py`). It
runs where it is asked for by name: where the others refuse, cuBLAS makes the reference faster than plain threads are.
"""

from __future__ import annotations

import math

import numpy as np

from ...dropout import threshold_and_scale
from ...registry import array_module, register
from ...simt import DEVICE, launch, problem
from ..visible import row_ranges

__all__ = ["attention", "attention_backward"]

LARGEST_HEAD = 256


def _limits(*args, score_mod, block_mask, **settings) -> str | None:
    if score_mod is not None or block_mask is not None:
        return "it takes no score_mod and no block_mask, for these are compiled for the CPU only"
    if hasattr(settings["seed"], "shape"):
        return "it takes a seed from the host, and this one is an array on the device"
    if args[0].shape[3] > LARGEST_HEAD:
        return f"it takes head sizes up to {LARGEST_HEAD}, whose tiles fit into shared memory"
    return problem()


@register("attention", name="numba_cuda", device=DEVICE, dtypes=("float32", "float16"), limits=_limits, automatic=False)
def attention(
    q, k, v, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
):  # fmt: skip
    from .forward import forward_kernel
    from .tiles import tile_sizes

    xp, (B, H, T, D), S = array_module(q), q.shape, k.shape[2]
    out, logsumexp = _heads_like(q), xp.empty((B, H, T), q.dtype)
    if q.size == 0 or S == 0:
        out[...], logsumexp[...] = 0, -math.inf
        return out, logsumexp
    ranges = _ranges(q, S, causal, window, key_lengths, cu_seqlens, cu_seqlens_k)
    settings = _settings(q, S, scale, soft_cap, bias, alibi_slopes, dropout_p, seed)
    tile, thread_rows, *_ = tile_sizes(D)
    launch(forward_kernel(D), -(-T // tile) * H * B, (tile, thread_rows), q, k, v, *ranges, *settings, out, logsumexp)
    return out, logsumexp


@register(
    "attention_backward", name="numba_cuda", device=DEVICE, dtypes=("float32", "float16"), limits=_limits,
    automatic=False,
)  # fmt: skip
def attention_backward(
    g, q, k, v, out, logsumexp, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens,
    cu_seqlens_k, dropout_p, seed, score_mod, block_mask, bias_gradient, into
):  # fmt: skip
    from .backward import bias_kernel, key_kernel, query_kernel
    from .tiles import tile_sizes

    xp, (B, H, T, D), (_, Hk, S, _) = array_module(q), q.shape, k.shape
    dq, dk, dv = into or (_heads_like(q), _heads_like(k), _heads_like(v))
    if q.size == 0 or S == 0:
        dq[...], dk[...], dv[...] = 0, 0, 0
        return dq, dk, dv, xp.zeros(bias.shape, q.dtype) if bias_gradient else None
    ranges = _ranges(q, S, causal, window, key_lengths, cu_seqlens, cu_seqlens_k)
    deltas = (g.astype(np.float32) * out.astype(np.float32)).sum(axis=-1)
    settings = _settings(q, S, scale, soft_cap, bias, alibi_slopes, dropout_p, seed)
    arguments = g, q, k, v, *ranges, logsumexp, deltas, *settings
    tile, thread_rows, *_ = tile_sizes(D)
    queries, keys, threads = -(-T // tile), -(-S // tile), (tile, thread_rows)
    launch(query_kernel(D), queries * H * B, threads, *arguments, dq)
    launch(key_kernel(D), keys * Hk * B, threads, *arguments, dk, dv)
    if not bias_gradient:
        return dq, dk, dv, None
    d_bias = xp.empty((*bias.shape[:2], T, S), np.float32)
    launch(bias_kernel(D), keys * queries * d_bias.shape[0] * d_bias.shape[1], threads, *arguments, d_bias)
    repeated = tuple(axis for axis in (2, 3) if bias.shape[axis] < d_bias.shape[axis])
    return dq, dk, dv, d_bias.sum(axis=repeated, keepdims=True).astype(q.dtype) if repeated else d_bias.astype(q.dtype)


def _heads_like(x):
    """An empty (B, H, T, D) array like x, laid out so that merging the heads, to (B, T, H * D), copies nothing."""
    B, H, T, D = x.shape
    return array_module(x).empty((B, T, H, D), x.dtype).swapaxes(1, 2)


def _ranges(q, S, causal, window, key_lengths, cu_seqlens, cu_seqlens_k):
    """first_keys, stop_keys and positions, each (B, T)."""
    found = row_ranges(
        q, S, causal=causal, window=window, key_lengths=key_lengths, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
    )
    return tuple(array_module(q).broadcast_to(array, (q.shape[0], q.shape[2])) for array in found)


def _settings(q, S, scale, soft_cap, bias, alibi_slopes, dropout_p, seed):
    """What the kernels take for these settings; zero, or one zero seen everywhere, for those that are not in use."""
    xp, (B, H, T, _) = array_module(q), q.shape
    nothing = xp.zeros((1, 1, 1, 1), q.dtype)
    bias = xp.broadcast_to(nothing if bias is None else bias, (B, H, T, S))
    slopes = xp.broadcast_to(nothing[0, 0], (B, H)) if alibi_slopes is None else alibi_slopes
    threshold, keep_scale = threshold_and_scale(dropout_p)
    return (
        *(np.float32(scale), np.float32(soft_cap or 0), bias, slopes),
        *(np.uint64(threshold), np.float32(keep_scale), np.uint64(seed)),
    )
