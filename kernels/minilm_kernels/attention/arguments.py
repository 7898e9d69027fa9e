"""What `attention` asks of its arguments, and the one form in which its implementations get them."""

from __future__ import annotations

import math

import numpy as np

from .. import checks, registry
from .visible import window_sides

__all__ = ["check_backward", "checked"]


def checked(
    q, k, v, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
    seed, score_mod, block_mask
) -> dict:  # fmt: skip
    """Raises if the arguments don't fit together; returns the settings as implementations take them."""
    shape = _check_shapes(q, k, v)
    optional = bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, score_mod, block_mask, soft_cap, window
    if all(setting is None for setting in optional) and dropout_p == 0:  # nearly always
        scale = 1 / math.sqrt(shape[4]) if scale is None else float(scale)
        return _PLAIN | {"causal": bool(causal), "scale": scale}
    B, H, T, S, D = shape
    xp = registry.array_module(q)
    if soft_cap is not None and not soft_cap > 0:
        raise ValueError(f"soft_cap is {soft_cap}; expected a number above 0, or None for no cap")
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p is {dropout_p}; expected a probability from 0 to below 1")
    if bias is not None:
        bias = _checked_bias(bias, (B, H, T, S), q.dtype)
    if alibi_slopes is not None:
        alibi_slopes = xp.asarray(alibi_slopes, q.dtype)
        if alibi_slopes.shape not in ((H,), (B, H)):
            raise ValueError(f"alibi_slopes has shape {alibi_slopes.shape}; expected ({H},) or ({B}, {H}), one a head")
        alibi_slopes = xp.broadcast_to(alibi_slopes, (B, H))
    if key_lengths is not None:
        key_lengths = xp.asarray(key_lengths)
        checks.is_integer("key_lengths", key_lengths, (B,))
        # On a GPU looking at the values would stall it; there, too, a length beyond S means every key.
        if _on_cpu(key_lengths) and B and (key_lengths.min() < 0 or key_lengths.max() > S):
            raise ValueError(f"key_lengths is {key_lengths.tolist()}; expected lengths from 0 to S = {S}")
    if cu_seqlens is None and cu_seqlens_k is not None:
        raise ValueError("cu_seqlens_k was given without cu_seqlens; give where the query sequences begin as well")
    if cu_seqlens is not None:
        if B != 1:
            raise ValueError(f"cu_seqlens is for sequences packed along the length with B = 1; q has B = {B}")
        cu_seqlens = _checked_starts("cu_seqlens", xp, cu_seqlens, T)
        if cu_seqlens_k is None and T != S:
            raise ValueError(f"q has length {T} and k {S}; give cu_seqlens_k, where the key sequences begin, as well")
        cu_seqlens_k = cu_seqlens if cu_seqlens_k is None else _checked_starts("cu_seqlens_k", xp, cu_seqlens_k, S)
        if cu_seqlens.shape != cu_seqlens_k.shape:
            raise ValueError(
                f"cu_seqlens names {len(cu_seqlens) - 1} sequences and cu_seqlens_k {len(cu_seqlens_k) - 1}; "
                "expected as many of each"
            )
    if score_mod is not None or block_mask is not None:
        from .mods import check_block_mask, checked_score_mod

        score_mod = checked_score_mod(score_mod)
        check_block_mask(block_mask, B, H, T, S)
    return {
        "causal": bool(causal),
        "window": None if window is None else _checked_window(window),
        "scale": 1 / math.sqrt(D) if scale is None else float(scale),
        "soft_cap": None if soft_cap is None else float(soft_cap),
        "bias": bias,
        "alibi_slopes": alibi_slopes,
        "key_lengths": key_lengths,
        "cu_seqlens": cu_seqlens,
        "cu_seqlens_k": cu_seqlens_k,
        "dropout_p": float(dropout_p),
        "seed": checks.seed("seed", seed),
        "score_mod": score_mod,
        "block_mask": block_mask,
    }


_PLAIN = {
    "window": None, "soft_cap": None, "bias": None, "alibi_slopes": None, "key_lengths": None, "cu_seqlens": None,
    "cu_seqlens_k": None, "dropout_p": 0.0, "seed": 0, "score_mod": None, "block_mask": None,
}  # fmt: skip


def check_backward(g, q, k, v, out, logsumexp, bias, bias_gradient, into) -> None:
    """Raises unless what the backward pass is given beside `attention`'s own arguments fits them."""
    checks.matches("g", g, q.shape, q.dtype)
    checks.matches("out", out, q.shape, q.dtype)
    wide = checks.is_half(q.dtype) and getattr(logsumexp, "dtype", None) == np.float32
    checks.matches("logsumexp", logsumexp, q.shape[:3], logsumexp.dtype if wide else q.dtype)
    if bias_gradient and bias is None:
        raise ValueError("bias_gradient is asked for, and there is no bias; give the bias that attention had")
    if into is not None and len(into) != 3:
        raise ValueError(f"into holds {len(into)} arrays; expected three, for dq, dk and dv")
    for name, array, like in zip(("dq", "dk", "dv"), into or (), (q, k, v)):
        checks.matches(f"{name} in into", array, like.shape, q.dtype)


def _check_shapes(q, k, v) -> tuple[int, int, int, int, int]:
    checks.is_floating("q", q)
    if q.ndim != 4 or q.shape[3] == 0:
        raise ValueError(
            f"q has shape {q.shape}; expected (batch, heads, length, head size) with a head size of 1 or more"
        )
    checks.matches("v", v, k.shape, q.dtype)
    checks.matches("k", k, v.shape, q.dtype)
    if k.ndim != 4:
        raise ValueError(f"k and v have shape {k.shape}; expected (batch, key heads, length, head size)")
    B, H, T, D = q.shape
    Bk, Hk, S, Dk = k.shape
    if Bk != B or Dk != D:
        raise ValueError(
            f"q has shape {q.shape} and k {k.shape}; expected the same batch and head size, first and last"
        )
    if Hk == 0 or H % Hk:
        raise ValueError(f"q has {H} heads and k has {Hk}; expected the query heads to be a multiple of the key heads")
    return B, H, T, S, D


def _checked_window(window) -> tuple[int | None, int | None]:
    if isinstance(window, (int, np.integer)) and window >= 1:
        return window_sides(int(window))
    sides = tuple(window) if isinstance(window, (tuple, list)) else ()
    if len(sides) != 2 or not all(
        side is None or (isinstance(side, (int, np.integer)) and side >= 0) for side in sides
    ):
        raise ValueError(
            f"window is {window!r}; expected a number of keys, 1 or more, or (left, right): how many keys are seen on "
            "each side of the query's own, None for all"
        )
    return tuple(None if side is None else int(side) for side in sides)


def _checked_bias(bias, shape, dtype):
    checks.is_floating("bias", bias)
    if bias.dtype != dtype:
        raise TypeError(f"bias is {bias.dtype}; expected {dtype} like q: use bias.astype('{dtype}')")
    full = (1,) * (4 - bias.ndim) + bias.shape
    if len(full) > 4 or any(n not in (1, wide) for n, wide in zip(full, shape)):
        raise ValueError(f"bias has shape {bias.shape}; expected one that broadcasts to (B, H, T, S) = {shape}")
    return bias.reshape(full)


def _checked_starts(name, xp, starts, length):
    starts = xp.asarray(starts)
    if starts.ndim != 1 or len(starts) < 2:
        raise ValueError(f"{name} has shape {starts.shape}; expected (n + 1,): where n sequences begin, and the end")
    checks.is_integer(name, starts, starts.shape)
    if _on_cpu(starts) and (starts[0] != 0 or starts[-1] != length or (np.diff(starts) < 0).any()):
        raise ValueError(f"{name} is {starts.tolist()}; expected numbers from 0 to the length, {length}, in order")
    return starts


def _on_cpu(array) -> bool:
    return registry.device_of(array) == "cpu"
