"""Attention on the CPU: the kernels of `forward.py` and `backward.py`, given arrays and threads."""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from numba import types

from ..registry import register

__all__ = ["attention", "attention_backward"]

# Below this many multiply-adds, 0.1 ms of them, starting the threads costs more than they save.
SERIAL_WORK = 1_000_000


@register("attention", name="cpu", device="cpu", dtypes={"float32"})
def attention(q, k, v, *, causal, scale, key_lengths):
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    out, logsumexp = _like(q), np.empty((B, H, T), np.float32)
    if out.size == 0:
        return out, logsumexp
    n_threads = _threads(B * H * T * S * D)
    # Some tasks a thread keep the threads equally busy; fewer rows than that to a task, and packing its keys shows.
    rows = H // Hk * T
    chunk = min(252, max(24, -(-rows * B * Hk // (4 * n_threads))), rows)
    _forward()(
        n_threads,
        *(_dense(q), _dense(k), _dense(v), _lengths(key_lengths, B, S), causal, np.float32(scale)),
        *(chunk, np.zeros(1, np.int64), out, logsumexp),
    )
    return out, logsumexp


@register("attention_backward", name="cpu", device="cpu", dtypes={"float32"})
def attention_backward(g, q, k, v, out, logsumexp, *, causal, scale, key_lengths, into):
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    given = into or (_like(q), _like(k), _like(v))
    dq, dk, dv = (x if _is_dense(x) else np.empty(x.shape, np.float32) for x in given)
    n_threads = _threads(B * H * T * S * D) if B * Hk > 1 else 1
    _backward()(
        n_threads,
        *(_dense(g), _dense(q), _dense(k), _dense(v), _lengths(key_lengths, B, S), causal, np.float32(scale)),
        *(np.zeros(1, np.int64), _dense(out), np.ascontiguousarray(logsumexp), dq, dk, dv),
    )
    for array, gradient in zip(given, (dq, dk, dv)):
        if array is not gradient:
            array[...] = gradient
    return given


def _threads(work):
    return numba.get_num_threads() if work > SERIAL_WORK else 1


def _like(x):
    """An empty (B, H, T, D) array like x, laid out so that merging the heads, to (B, T, H * D), copies nothing."""
    B, H, T, D = x.shape
    return np.empty((B, T, H, D), np.float32).swapaxes(1, 2)


def _dense(x):
    """`x` itself if the elements of a row lie side by side, as vector loads need it, else a copy."""
    return x if _is_dense(x) else np.ascontiguousarray(x)


def _is_dense(x):
    return x.strides[3] == 4 and x.flags.aligned


def _lengths(key_lengths, B, S):
    return np.full(B, S, np.int64) if key_lengths is None else key_lengths.astype(np.int64)


_ROWS = types.Array(types.float32, 3, "C", readonly=True)
_INTS = types.Array(types.int64, 1, "C")


@cache
def _forward():
    from .forward import forward, forward_parallel
    from .tiles import READ, WRITE

    logsumexp = types.Array(types.float32, 3, "C")
    return _launcher(
        forward,
        forward_parallel,
        (READ, READ, READ, _INTS, types.boolean, types.float32, types.int64, _INTS, WRITE, logsumexp),
    )


@cache
def _backward():
    from .backward import backward, backward_parallel
    from .tiles import READ, WRITE

    return _launcher(
        backward,
        backward_parallel,
        (*[READ] * 4, _INTS, types.boolean, types.float32, _INTS, READ, _ROWS, WRITE, WRITE, WRITE),
    )


def _launcher(kernel, parallel, argument_types):
    """Compiles a kernel once, for arrays of any strides, and returns launch(n_threads, *arguments).

    The parallel loop calls it by address: linked into the loop, LLVM would optimise it four times over.
    """
    kernel.compile(argument_types)
    kernel.disable_compile()
    compiled = kernel.overloads[argument_types]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    parallel.compile((types.int64, types.int64, *argument_types))
    parallel.disable_compile()

    def launch(n_threads, *arguments):
        if n_threads == 1:
            kernel(*arguments)
        else:
            parallel(n_threads, address, *arguments)

    return launch
