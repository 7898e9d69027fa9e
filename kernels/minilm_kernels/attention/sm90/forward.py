"""Attention's forward pass on Hopper: which arguments the kernel takes, and how it is launched."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...cuda import Program, device_properties, scalar_name
from ...cuda.tensor_map import can_map, tensor_map
from ...registry import array_module, register

__all__ = ["attention", "limits"]

# Of a tile, by its width (heads that are narrower are filled up with zeros): keys to a block, and warpgroups that
# compute 64 queries each. What limits both is a thread's registers: it holds 1/128 of 64 x keys scores and weights and
# of 64 x width sums; and, from width 128 on, shared memory, which holds two blocks of keys and two of values.
_TILES = {64: (128, 3), 96: (128, 2), 128: (176, 2), 192: (96, 2), 256: (80, 2)}
_MASKED_KEYS = 128  # blocks of at most so many where masks cut across: less is computed in vain
_STAGES = 2
_PINGPONG = 1  # warpgroups take turns at the tensor cores
_SMALLEST_HEAD = 40  # below that half of a tile's width would be zeros
_FEWEST_QUERIES = 16
_CACHED = 32 << 20  # bytes of keys and values that are sure to stay in an H100's 50 MB of L2 cache
_NO_END = 1 << 29  # of a window: beyond any length, and safe to add to a position


def limits(
    q, k, v, *, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
) -> str | None:  # fmt: skip
    """Why the kernel can't run on these arguments, None if it can."""
    D = q.shape[3]
    if device_properties().capability != 90:
        return "it uses instructions that only cards of compute capability 9.0 have"
    if D % 8 or not _SMALLEST_HEAD <= D <= max(_TILES):
        return f"it takes head sizes from {_SMALLEST_HEAD} to {max(_TILES)} in steps of 8, and this one is {D}"
    if q.shape[2] < _FEWEST_QUERIES or q.size == 0 or k.size == 0:
        return f"it is for {_FEWEST_QUERIES} queries and more, and for some keys"
    if max(q.shape[2], k.shape[2]) >= _NO_END // 2:
        return f"it takes lengths below {_NO_END // 2}"
    if not 0 < scale < math.inf:
        return "it takes scales above 0, under which the largest product is the largest score"
    named = {
        "soft_cap": soft_cap, "bias": bias, "alibi_slopes": alibi_slopes, "cu_seqlens": cu_seqlens,
        "score_mod": score_mod, "block_mask": block_mask, "dropout_p": dropout_p or None
    }  # fmt: skip
    given = [name for name, value in named.items() if value is not None]
    return f"it has no {', '.join(given)}" if given else None


@register("attention", name="cuda_sm90", device="cuda", dtypes={"float16", "bfloat16"}, limits=limits)
def attention(
    q, k, v, *, causal, window, scale, soft_cap=None, bias=None, alibi_slopes=None, key_lengths=None, cu_seqlens=None,
    cu_seqlens_k=None, dropout_p=0.0, seed=0, score_mod=None, block_mask=None
):  # fmt: skip
    """As `minilm_kernels.attention`, for what `limits` lets through; logsumexp is float32."""
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    xp = array_module(q)
    q, k, v = _mapped(q), _mapped(k), _mapped(v)
    out = xp.empty((B, T, H, D), q.dtype).swapaxes(1, 2)  # merging the heads then copies nothing
    logsumexp = xp.empty((B, H, T), np.float32)
    left, right = (None, None) if window is None else window
    right = 0 if causal and right is None else min(right, 0) if causal else right
    lengths = None if key_lengths is None else xp.ascontiguousarray(key_lengths, np.int32)

    width = next(width for width in _TILES if width >= D)
    keys, consumers = _TILES[width]
    if right is not None or left is not None:
        keys = min(keys, _MASKED_KEYS)
    kernel = _kernel(scalar_name(q.dtype), width, keys, consumers, _PINGPONG)
    rows = 64 * consumers
    tiles, processors = -(-T // rows) * B * H, device_properties().multiprocessors
    unequal = left is not None or right is not None or lengths is not None
    taken = xp.zeros(1, np.int32) if unequal and tiles > processors else None
    key_heads_cached = max(1, _CACHED // (2 * S * D * k.itemsize))
    kernel(
        min(tiles, processors),
        128 * (consumers + 1),
        (
            *(tensor_map(q, rows), tensor_map(k, keys), tensor_map(v, keys), tensor_map(out, 64), logsumexp, lengths),
            *map(np.int32, (H, Hk, T, S)),
            *(np.int32(_NO_END if side is None else min(side, _NO_END)) for side in (left, right)),
            *(np.float32(scale), np.int32(B * H), np.int32(min(B * H, key_heads_cached * (H // Hk))), taken),
        ),
        shared_bytes=_shared_bytes(width, keys, consumers),
    )
    return out, logsumexp


@cache
def _kernel(scalar: str, width: int, keys: int, consumers: int, pingpong: int):
    tile = {"HEAD_SIZE": width, "KEYS": keys, "CONSUMERS": consumers, "STAGES": _STAGES}
    macros = {"SCALAR": scalar, **tile, "PINGPONG": pingpong}
    return Program(__file__, "forward.cu", macros, specific=True).kernel("attention_forward")


def _shared_bytes(width: int, keys: int, consumers: int) -> int:
    """The size of Layout in tiles.cuh: panels of 64 columns, 128 bytes a row; barriers of 8 bytes, and the tile."""
    panels = -(-width // 64)
    return panels * 128 * (64 * consumers + 2 * _STAGES * keys) + (3 + 4 * _STAGES) * 8


def _mapped(x):
    """`x` itself if the copy engine can read it where it lies, else a copy."""
    if can_map(x):
        return x
    return array_module(x).array(x, order="C", copy=True)
