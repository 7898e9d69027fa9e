"""Attention of a few queries to many keys on CUDA, as in decoding: the keys are split among blocks (`decode.cu`).

Lengths of keys stay on the card, so that a step of decoding can be captured as a graph: the whole of k is split, and
blocks beyond a row's keys end at once.
"""

from __future__ import annotations

import numpy as np

from ...cuda.launching import DTYPES, PACK_BYTES, address, program
from ...cuda.program import device_properties
from ...registry import array_module, register

__all__ = ["attention"]

MOST_ROWS = 16  # queries of a key head: beyond, the tensor cores are worth their tiles
_ROWS = 4  # of them at a time: more would leave registers for too few blocks
_LEAST_KEYS = 128  # of a split
_MOST_HEADS = 65535  # what a grid has in its second dimension
_WARP, _WARPS = 32, 4


def _limits(q, k, v, *, causal, window, scale, soft_cap, **settings) -> str | None:
    (B, H, T, D), Hk = q.shape, k.shape[1]
    settings["dropout_p"] = settings.get("dropout_p") or None
    given = [name for name, value in settings.items() if value is not None and name not in ("key_lengths", "seed")]
    if given:
        return f"it has no {', '.join(given)}"
    if H // Hk * T > MOST_ROWS:
        return f"it is for up to {MOST_ROWS} queries a key head, and there are {H // Hk * T}"
    if D % 8 or D > 256:
        return f"the head size is {D}; it takes multiples of 8 up to 256"
    if B * Hk > _MOST_HEADS:
        return f"a launch has at most {_MOST_HEADS} key heads of all batch rows, and there are {B * Hk}"
    if k.shape[2] == 0:
        return "there are no keys"
    return None


@register("attention", name="cuda_decode", device="cuda", dtypes=DTYPES, limits=_limits)
def attention(
    q, k, v, *, causal, window, scale, soft_cap, bias=None, alibi_slopes=None, key_lengths=None, cu_seqlens=None,
    cu_seqlens_k=None, dropout_p=0.0, seed=0, score_mod=None, block_mask=None
):  # fmt: skip
    xp = array_module(q)
    (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
    q, k, v = (_packed(xp, x) for x in (q, k, v))
    group = H // Hk
    rows = min(_ROWS, 1 << (group * T - 1).bit_length()) if T else 1
    row_chunks = -(-group * T // rows)
    splits = _splits(B * Hk * row_chunks, S)
    keys_of_split = -(-S // splits)
    left, right = (-1 if side is None else min(side, S) for side in window or (None, None))
    right = 0 if causal else right
    if key_lengths is not None:
        key_lengths = xp.ascontiguousarray(key_lengths, dtype=np.int64)
    sums, states = xp.empty((splits, B, H, T, D), np.float32), xp.empty((splits, B, H, T, 2), np.float32)
    compiled = program(__file__, "decode.cu", q.dtype, HEAD_SIZE=D, ROWS=rows)
    sizes = Hk, group, T, S, keys_of_split, left, right
    compiled.kernel("decode_split")(
        (splits, B * Hk, row_chunks),
        _WARP * _WARPS,
        (q, k, v, key_lengths, sums, states, *_strides(q), *_strides(k), *_strides(v), *map(np.int32, sizes),
         np.float32(scale), np.float32(soft_cap or 0)),
        shared_bytes=4 * _lane_groups(D * q.itemsize) * rows * (D + 2),
    )  # fmt: skip
    out = xp.empty((B, T, H, D), q.dtype).swapaxes(1, 2)  # merging the heads copies nothing
    logsumexp = xp.empty((B, H, T), np.float32)
    arguments = sums, states, out, logsumexp, *_strides(out), np.int32(H), np.int32(T), np.int32(splits)
    compiled.kernel("decode_combine")(B * H * T, _WARP * _WARPS, arguments)
    return out, logsumexp


def _packed(xp, x):
    """`x` itself if its rows can be read in packs where they lie, else a copy."""
    steps = x.strides[3] == x.itemsize and all(stride % PACK_BYTES == 0 for stride in x.strides[:3])
    return x if steps and address(x) % PACK_BYTES == 0 else xp.ascontiguousarray(x)


def _strides(x) -> list[np.int64]:
    return [np.int64(stride // x.itemsize) for stride in x.strides[:3]]


def _lane_groups(row_bytes: int) -> int:
    """GROUPS of the source: how many keys a block works on at a time."""
    packs = -(-row_bytes // PACK_BYTES)
    lanes = 32 if packs > 16 else 16 if packs > 8 else 8 if packs > 4 else 4
    return _WARPS * _WARP // lanes


def _splits(blocks: int, keys: int) -> int:
    """Enough splits to give each multiprocessor a few blocks, none of too few keys."""
    wanted = -(-4 * device_properties().multiprocessors // max(blocks, 1))
    return max(1, min(wanted, keys // _LEAST_KEYS))
