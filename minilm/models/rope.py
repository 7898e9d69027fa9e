"""The angles of rotary position embeddings, as config files describe them: plain, or stretched for longer contexts."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from minilm.backend import to_device

__all__ = ["frequencies_on", "read_rope", "rope_frequencies"]

_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
_OPTIONAL = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")}


def read_rope(values: dict, max_position_embeddings: int) -> dict:
    """`rope_parameters` from a config in the new spelling (one object) or the old (`rope_theta` and `rope_scaling`).

    Where both are given, `rope_scaling` holds, as in transformers. The kinds are default, linear, dynamic, llama3 and
    yarn. Raises ValueError for another, and for what is missing.
    """
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    rope = dict(given)
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    rope.setdefault("rope_theta", values.get("rope_theta", 10000.0))
    if kind not in _NEEDED:
        raise ValueError(f"rotary embeddings of the kind {kind!r} are not known; there are: {', '.join(_NEEDED)}")
    if kind == "yarn":
        rope.setdefault("original_max_position_embeddings", max_position_embeddings)
    known = {"rope_theta", "original_max_position_embeddings", *_NEEDED[kind], *_OPTIONAL.get(kind, ())}
    rope.setdefault("partial_rotary_factor", values.get("partial_rotary_factor"))
    if rope.pop("partial_rotary_factor") not in (None, 1.0):
        raise ValueError("partial_rotary_factor is not 1: heads that are rotated in part are not supported here")
    for name, value in rope.items():
        least = 0 if name in _OPTIONAL.get(kind, ()) else 1e-30
        if name != "truncate" and value is not None and not (isinstance(value, (int, float)) and least <= value < 1e30):
            raise ValueError(f"the rotary embedding's {name} is {value!r}; expected a positive number")
    if unknown := sorted(set(rope) - known):
        raise ValueError(f"the {kind} rotary embedding has no parameter {unknown[0]!r}; it has {sorted(known)}")
    if missing := [name for name in _NEEDED[kind] if not isinstance(rope.get(name), (int, float))]:
        raise ValueError(f"the {kind} rotary embedding needs a number {missing[0]!r}; the config gives {given}")
    return {"rope_type": kind, **rope}


def rope_frequencies(rope: dict, head_dim: int, max_position_embeddings: int, length: int) -> tuple[np.ndarray, float]:
    """Radians a position (D/2,) in float64 for each pair of features, and what cos and sin are multiplied by.

    `length` is that of the sequence so far, on which the dynamic kind depends. Sources: Su et al. 2021
    (arXiv:2104.09864); linear: Chen et al. 2023 (arXiv:2306.15595); dynamic: bloc97 2023; yarn: Peng et al. 2023
    (arXiv:2309.00071); llama3: Grattafiori et al. 2024 (arXiv:2407.21783).

    >>> rope_frequencies({"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}, 4, 16, 8)
    (array([0.5 , 0.05]), 1.0)
    """
    kind, base, factor = rope["rope_type"], rope["rope_theta"], rope.get("factor")
    if kind == "dynamic":
        stretch = factor * max(length, max_position_embeddings) / max_position_embeddings - (factor - 1)
        base = base * stretch ** (head_dim / (head_dim - 2))
    frequencies = base ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if kind == "linear":
        return frequencies / factor, 1.0
    if kind == "llama3":
        return _llama3(frequencies, rope), 1.0
    if kind == "yarn":
        return _yarn(frequencies, rope, head_dim)
    return frequencies, 1.0


def frequencies_on(device: str, rope: dict, head_dim: int, max_position_embeddings: int, length: int) -> tuple:
    """`rope_frequencies` on a device, where they stay for the next call: a copy to a GPU would hold up each step."""
    length = length if rope["rope_type"] == "dynamic" else 0  # for no other kind it matters
    return _frequencies_on(device, tuple(sorted(rope.items())), head_dim, max_position_embeddings, length)


@lru_cache(maxsize=16)
def _frequencies_on(device: str, rope: tuple, *lengths: int) -> tuple:
    frequencies, factor = rope_frequencies(dict(rope), *lengths)
    return to_device(frequencies, device), factor


def _llama3(frequencies: np.ndarray, rope: dict) -> np.ndarray:
    """Slow turns, longer than the old context, are slowed by the factor; quick ones stay; between it is a ramp."""
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * frequencies / rope["factor"] + share * frequencies


def _yarn(frequencies: np.ndarray, rope: dict, head_dim: int) -> tuple[np.ndarray, float]:
    """Features that turn less than beta_slow times in the old context are slowed, those over beta_fast stay."""
    factor, context = rope["factor"], rope["original_max_position_embeddings"]

    def feature(turns):  # that turns so often in the old context
        return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    low, high = feature(rope.get("beta_fast") or 32), feature(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    slowed = np.clip((np.arange(head_dim // 2) - low) / (high - low or 0.001), 0, 1)
    return frequencies * (slowed / factor + 1 - slowed), _yarn_attention_factor(rope)


def _yarn_attention_factor(rope: dict) -> float:
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])

    def sharpened(weight=1.0):
        return 1.0 if rope["factor"] <= 1 else 0.1 * weight * math.log(rope["factor"]) + 1

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return sharpened(rope["mscale"]) / sharpened(rope["mscale_all_dim"])
    return sharpened()
