"""Attention on CUDA: the tensor core kernels of `forward.cu` and `backward.cu`, given arrays and a grid.

The launching code asks nothing of its arrays but addresses and strides, so that the tests can run it, kernels and all,
on the host.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ..cuda import Program, device_properties, scalar_name
from ..registry import array_module, register
from .cuda_tiles import HEAD_SIZES, backward_tiles, forward_tiles

__all__ = ["attention", "attention_backward"]

_HEADS = [("data", "u8"), ("batch", "i8"), ("head", "i8"), ("row", "i8")]
# As problem.cuh has it.
PROBLEM = np.dtype(
    [
        *[(name, _HEADS) for name in ("q", "k", "v", "out", "g", "dq", "dk", "dv")],
        *[(name, "u8") for name in ("logsumexp", "rows", "dq_sums", "turns", "tickets", "bias")],
        *[(f"bias_{axis}", "i8") for axis in ("batch", "head", "query", "key")],
        *[
            (name, "u8")
            for name in ("d_bias", "alibi_slopes", "key_lengths", "starts", "key_starts", "seed", "seed_at")
        ],
        *[(name, "i4") for name in ("B", "H", "group", "T", "S", "head_size", "sequences", "left", "right")],
        *[(name, "i4") for name in ("padded", "beside")],
        ("threshold", "u4"),
        *[(name, "f4") for name in ("keep", "scale", "scale_log2", "soft_cap")],
    ],
    align=True,
)
_NO_END = -1  # of a window
_PADDING = 128  # no tile has more queries
_ROWS = 5 * 16  # numbers of Rows in problem.cuh, of 16 queries
# Of the blocks of backward.cu that run at a time so many are one head's, each a tile behind another and reading what
# that one has just had brought to the L2 cache; the fewer, the sooner the last begins. Fewer where heads are so small
# that all that is worked on stays there: bytes of q, g and the sums of dq, of an H100's 50 MB.
_FOLLOWING = 4
_CACHED = 24 << 20
_ROWS_WARPS = 4
_LONGEST = 2**30


def _limits(q, k, v, *, score_mod, block_mask, **settings):
    B, H, T, D = q.shape
    if score_mod is not None or block_mask is not None:
        return "it has no score_mod and no block_mask"
    if max(HEAD_SIZES) < D:
        return f"the head size is {D}, and its tiles are made for up to {max(HEAD_SIZES)}"
    if max(B, H) > 65535 or max(T, k.shape[2]) > _LONGEST:
        return "a launch has at most 65535 batch rows and heads, and lengths of 2**30"
    if device_properties().capability < 80:
        return "it uses instructions that cards have from compute capability 8.0 on"
    return None


def _limits_backward(g, q, k, v, out, logsumexp, *, bias_gradient, into, **settings):
    return _limits(q, k, v, **settings)


_DTYPES = "float16", "bfloat16", "float32"


@register("attention", name="cuda", device="cuda", dtypes=_DTYPES, limits=_limits)
def attention(
    q, k, v, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
):  # fmt: skip
    (B, H, T, D), xp = q.shape, array_module(q)
    q, k, v = (_dense(x) for x in (q, k, v))
    out, logsumexp = _empty_heads(xp, (B, H, T, q.shape[3]), q.dtype), xp.empty((B, H, T), np.float32)
    problem, macros, _alive = _problem(
        q, k, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
        seed, D
    )  # fmt: skip
    _point(problem, q=q, k=k, v=v, out=out)
    problem["logsumexp"] = _address(logsumexp)
    wide, sizes, shared_bytes = _forward_sizes(q.shape[3], q.dtype.itemsize, plain=not any(macros.values()))
    kernel = _kernel("forward", scalar_name(q.dtype), wide, q.shape[3] != wide, sizes, tuple(macros.items()))
    kernel((-(-T // sizes.m), H, B), sizes.threads, (problem[()],), shared_bytes)
    return (out if out.shape[3] == D else out[..., :D]), logsumexp


@register("attention_backward", name="cuda", device="cuda", dtypes=_DTYPES, limits=_limits_backward)
def attention_backward(
    g, q, k, v, out, logsumexp, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens,
    cu_seqlens_k, dropout_p, seed, score_mod, block_mask, bias_gradient, into
):  # fmt: skip
    (B, H, T, D), (_, Hk, S, _), xp = q.shape, k.shape, array_module(q)
    given = into or [_empty_heads(xp, x.shape, x.dtype) for x in (q, k, v)]
    g, q, k, v, out = (_dense(x) for x in (g, q, k, v, out))
    dq, dk, dv = (
        x if _is_dense(x) else _empty_heads(xp, (*x.shape[:3], wide.shape[3]), x.dtype)
        for x, wide in zip(given, (q, k, v))
    )
    problem, macros, _alive = _problem(
        q, k, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
        seed, D
    )  # fmt: skip
    logsumexp = xp.ascontiguousarray(logsumexp, np.float32)
    wide, sizes, shared_bytes = _backward_sizes(
        q.shape[3], q.dtype.itemsize, device_properties().shared_bytes, plain=not any(macros.values())
    )
    padded = -(-T // _PADDING) * _PADDING
    rows, dq_sums = (xp.empty((B, H, padded // 16, n), np.float32) for n in (_ROWS, 16 * wide))
    turns, tickets = xp.empty((B, H, padded // 16), np.int32), xp.empty(1, np.int32)
    d_bias = xp.zeros((B, H, T, S), np.float32) if bias_gradient else None
    _point(problem, q=q, k=k, v=v, out=out, g=g, dq=dq, dk=dk, dv=dv)
    for name, array in zip(
        ("logsumexp", "rows", "dq_sums", "turns", "tickets"), (logsumexp, rows, dq_sums, turns, tickets)
    ):
        problem[name] = _address(array)
    problem["d_bias"] = 0 if d_bias is None else _address(d_bias)
    key_head_bytes = H // Hk * padded * wide * (2 * q.dtype.itemsize + 4)
    problem["padded"], problem["beside"] = padded, _beside(B * Hk, key_head_bytes, device_properties().multiprocessors)
    _rows_kernel(scalar_name(q.dtype))((padded // _ROWS_WARPS, H, B), 32 * _ROWS_WARPS, (problem[()],))
    kernel = _kernel("backward", scalar_name(q.dtype), wide, q.shape[3] != wide, sizes, tuple(macros.items()))
    kernel(-(-S // sizes.n) * Hk * B, sizes.threads, (problem[()],), shared_bytes)
    for array, gradient in zip(given, (dq, dk, dv)):
        if array is not gradient:
            array[...] = gradient[..., :D]
    if d_bias is not None:
        repeated = tuple(axis for axis, n in enumerate(bias.shape) if n == 1)
        d_bias = (d_bias.sum(axis=repeated, keepdims=True) if repeated else d_bias).astype(bias.dtype, copy=False)
    return (*given, d_bias)


def _problem(
    q, k, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p, seed, D
):
    """The settings as the kernels take them, the macros that they need, and arrays that must outlive the launch."""
    (B, H, T, _), (_, Hk, S, _), xp = q.shape, k.shape, array_module(q)
    problem = np.zeros((), PROBLEM)
    left, right = (None, None) if window is None else window
    if causal:
        right = 0
    sides = [_NO_END if side is None else min(side, _LONGEST) for side in (left, right)]
    sizes = B, H, H // Hk, T, S, q.shape[3], *sides
    for name, value in zip(("B", "H", "group", "T", "S", "head_size", "left", "right"), sizes):
        problem[name] = value
    problem["scale"], problem["scale_log2"], problem["keep"] = scale, scale * math.log2(math.e), 1
    macros = {"SOFT_CAP": soft_cap is not None, "BIAS": bias is not None, "ALIBI": alibi_slopes is not None}
    macros |= {"DROPOUT": dropout_p > 0, "ANY_SCALE": scale <= 0}
    alive = []

    def keep(name, array, dtype):
        alive.append(xp.ascontiguousarray(array, dtype))
        problem[name] = _address(alive[-1])

    if soft_cap is not None:
        problem["soft_cap"] = soft_cap
    if bias is not None:
        alive.append(bias)
        problem["bias"] = _address(bias)
        for axis, n, stride in zip(("batch", "head", "query", "key"), bias.shape, bias.strides):
            problem[f"bias_{axis}"] = 0 if n == 1 else stride // bias.dtype.itemsize
    if alibi_slopes is not None:
        keep("alibi_slopes", alibi_slopes, np.float32)
    if key_lengths is not None:
        keep("key_lengths", key_lengths, np.int32)
    if cu_seqlens is not None:
        keep("starts", cu_seqlens, np.int32)
        keep("key_starts", cu_seqlens_k, np.int32)
        problem["sequences"] = len(cu_seqlens) - 1
    if dropout_p > 0:
        from ..dropout import threshold_and_scale

        if hasattr(seed, "shape"):  # known to the device only
            alive.append(seed)
            problem["seed_at"] = _address(seed)
        else:
            problem["seed"] = seed
        problem["threshold"], problem["keep"] = threshold_and_scale(dropout_p)
    return problem, macros, alive


@cache
def _forward_sizes(head_size, itemsize, *, plain):
    """The width of the tiles, how large they are, and the shared memory that they take."""
    wide = _width(head_size)
    sizes = forward_tiles(wide, itemsize, plain=plain)
    return wide, sizes, sizes.forward_bytes(wide, itemsize)


@cache
def _backward_sizes(head_size, itemsize, shared_bytes, *, plain):
    wide = _width(head_size)
    sizes = backward_tiles(wide, itemsize, shared_bytes, plain=plain)
    return wide, sizes, sizes.backward_bytes(wide, itemsize)


def _beside(key_heads, key_head_bytes, multiprocessors):
    """How many key heads are worked on beside each other, in groups as equal as can be: a small last one would wait."""
    wanted = max(1, multiprocessors // _FOLLOWING, _CACHED // max(1, key_head_bytes))
    groups = max(1, round(key_heads / wanted))
    return -(-key_heads // groups)


def _width(head_size):
    return next(size for size in HEAD_SIZES if size >= head_size)


@cache
def _kernel(kernel, scalar, head_size, narrow, sizes, macros):
    macros = {name: int(on) for name, on in (*macros, ("NARROW", narrow))}
    defines = {"SCALAR": scalar, "HEAD_SIZE": head_size, **sizes.defines, **macros}
    return Program(__file__, f"{kernel}.cu", defines).kernel(f"attention_{kernel}")


@cache
def _rows_kernel(scalar):
    defines = {"SCALAR": scalar, "HEAD_SIZE": 32, "WARPS": _ROWS_WARPS}
    return Program(__file__, "backward_rows.cu", defines).kernel("attention_backward_rows")


def _point(problem, **arrays):
    for name, x in arrays.items():
        problem[name] = (_address(x), *(stride // x.dtype.itemsize for stride in x.strides[:3]))


def _address(array) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def _is_dense(x) -> bool:
    """Whether rows can be copied 16 bytes at a time, which is how the kernels read and write them."""
    aligned = all(stride % 16 == 0 for stride, n in zip(x.strides[:3], x.shape) if n > 1)
    whole = x.shape[3] * x.dtype.itemsize % 16 == 0 and x.strides[3] == x.dtype.itemsize
    return aligned and whole and _address(x) % 16 == 0


def _dense(x):
    """`x` itself if its rows are dense, else a copy, with zeros after the columns where its width asks for it."""
    if _is_dense(x):
        return x
    unit = 16 // x.dtype.itemsize
    copy = array_module(x).zeros((*x.shape[:3], -(-x.shape[3] // unit) * unit), x.dtype)
    copy[..., : x.shape[3]] = x
    return copy


def _empty_heads(xp, shape, dtype):
    """An empty (B, H, T, D) array laid out so that merging the heads, to (B, T, H * D), copies nothing."""
    B, H, T, D = shape
    return xp.empty((B, T, H, D), dtype).swapaxes(1, 2)


# Registered last, and so asked first: on Hopper one takes the forward passes that need no more than masks, and on
# any card the other those of a few queries to many keys.
from .sm90 import forward as _hopper  # noqa: E402, F401, I001
from . import cuda_decode as _decode  # noqa: E402, F401
