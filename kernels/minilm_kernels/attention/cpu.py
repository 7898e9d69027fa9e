"""Attention on the CPU: the kernels of `forward.py` and `backward.py`, given arrays and threads."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import types

from ..launch import address_of
from ..registry import register
from ..threads import get_num_threads
from .contract import TABLE
from .decode_cpu import decode_attention
from .layout import dense, heads_like, is_dense
from .visible import row_ranges

__all__ = ["attention", "attention_backward"]

# Below this many multiply-adds, 0.1 ms of them, starting the threads costs more than they save.
SERIAL_WORK = 1_000_000
# Up to so many queries a key head, reading keys and values where they lie beats packing them.
DECODE_ROWS = 12

_NO_MODIFIERS = np.empty((0, 2), np.int64), np.empty((0, TABLE), np.int64)
_NO_STATES = np.empty((0, 0, 0, 0), np.uint8)
_NO_DROPOUT = np.zeros(3, np.uint64)


@register("attention", name="cpu", device="cpu", dtypes={"float32"})
def attention(
    q, k, v, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
):  # fmt: skip
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    if q.size == 0:
        return heads_like(q), np.empty((B, H, T), np.float32)
    first, stop, position = row_ranges(
        q, S, causal=causal, window=window, key_lengths=key_lengths, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
    )
    modifiers, tables, _alive = _modifiers((B, H, T, S), position, soft_cap, bias, alibi_slopes, score_mod, block_mask)
    if H // Hk * T <= DECODE_ROWS and dropout_p == 0 and block_mask is None:
        return decode_attention(q, k, v, first, stop, scale, modifiers, tables)
    n_threads = _threads(B * H * T * S * D)
    # Some tasks a thread keep the threads equally busy; fewer rows than that to a task, and packing its keys shows.
    out, logsumexp = heads_like(q), np.empty((B, H, T), np.float32)
    rows = H // Hk * T
    chunk = min(252, max(24, -(-rows * B * Hk // (4 * n_threads))), rows)
    _forward()(
        n_threads,
        *(dense(q), dense(k), dense(v), first, stop, np.float32(scale), modifiers, tables, _states(block_mask)),
        *(_drop(dropout_p, seed), chunk, np.zeros(1, np.int64), out, logsumexp),
    )
    return out, logsumexp


@register("attention_backward", name="cpu", device="cpu", dtypes={"float32"})
def attention_backward(
    g, q, k, v, out, logsumexp, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens,
    cu_seqlens_k, dropout_p, seed, score_mod, block_mask, bias_gradient, into
):  # fmt: skip
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    given = into or (heads_like(q), heads_like(k), heads_like(v))
    dq, dk, dv = (x if is_dense(x) else np.empty(x.shape, np.float32) for x in given)
    d_bias = np.zeros(bias.shape, np.float32) if bias_gradient else None
    first, stop, position = row_ranges(
        q, S, causal=causal, window=window, key_lengths=key_lengths, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
    )
    modifiers, tables, _alive = _modifiers(
        (B, H, T, S), position, soft_cap, bias, alibi_slopes, score_mod, block_mask, d_bias, backward=True
    )
    # Batch rows and heads are tasks of their own unless they add to one gradient of a bias.
    alone = np.array([d_bias is None or len(d_bias) > 1, d_bias is None or d_bias.shape[1] > 1], np.int64)
    n_tasks = (B if alone[0] else 1) * (Hk if alone[1] else 1)
    n_threads = _threads(B * H * T * S * D) if n_tasks > 1 else 1
    _backward()(
        n_threads,
        *(dense(g), dense(q), dense(k), dense(v), first, stop, np.float32(scale), modifiers, tables),
        *(_states(block_mask), _drop(dropout_p, seed), alone, np.zeros(1, np.int64)),
        *(dense(out), np.ascontiguousarray(logsumexp), dq, dk, dv),
    )
    for array, gradient in zip(given, (dq, dk, dv)):
        if array is not gradient:
            array[...] = gradient
    return (*given, d_bias)


def _modifiers(shape, position, soft_cap, bias, alibi_slopes, score_mod, block_mask, d_bias=None, backward=False):
    """Addresses (n, 2) and tables (n, TABLE) of what changes the scores, in order, and what must outlive their use."""
    if soft_cap is None and bias is None and alibi_slopes is None and score_mod is None and block_mask is None:
        return *_NO_MODIFIERS, None
    from .standard import standard_modifier

    found = []
    if soft_cap is not None or bias is not None or alibi_slopes is not None:
        found.append(standard_modifier(shape, position, soft_cap, bias, alibi_slopes, d_bias))
    if score_mod is not None or block_mask is not None:
        from .mods import compiled

        mod = compiled(score_mod, None if block_mask is None else block_mask.mask_mod, shape=shape)
        # The forward pass runs without a derivative, of which there may be none.
        found.append(((mod.modify_address, mod.gradient_address if backward else 0), mod.table, mod.keep))
    addresses, tables, alive = zip(*found)
    return np.array(addresses, np.int64), np.array(tables, np.int64), alive


def _states(block_mask):
    return _NO_STATES if block_mask is None else block_mask.states


def _drop(p, seed):
    if p == 0:
        return _NO_DROPOUT
    from .keep import drop_settings

    return drop_settings(p, seed)


def _threads(work):
    return get_num_threads() if work > SERIAL_WORK else 1


_INTS = types.Array(types.int64, 1, "C")
_TABLES = types.Array(types.int64, 2, "C")
_RANGES = types.Array(types.int64, 2, "A", readonly=True)
_ROWS = types.Array(types.float32, 3, "C", readonly=True)
_STATES = types.Array(types.uint8, 4, "A", readonly=True)


@cache
def _forward():
    from .forward import forward, forward_all
    from .keep import DROP
    from .tiles import READ, WRITE

    inputs = READ, READ, READ, _RANGES, _RANGES, types.float32, _TABLES, _TABLES, _STATES, DROP
    logsumexp = types.Array(types.float32, 3, "C")
    return _launcher(forward, forward_all, (*inputs, types.int64, _INTS, WRITE, logsumexp))


@cache
def _backward():
    from .backward import backward, backward_all
    from .keep import DROP
    from .tiles import READ, WRITE

    inputs = *[READ] * 4, _RANGES, _RANGES, types.float32, _TABLES, _TABLES, _STATES, DROP, _INTS
    return _launcher(backward, backward_all, (*inputs, _INTS, READ, _ROWS, WRITE, WRITE, WRITE))


def _launcher(kernel, run, argument_types):
    """launch(n_threads, *arguments) of a kernel that is compiled once, for arrays of any strides."""
    address = address_of(kernel, argument_types)
    run.compile((types.int64, types.int64, *argument_types))
    run.disable_compile()
    return lambda n_threads, *arguments: run(n_threads, address, *arguments)
