"""Attention rules from the literature as score_mods and mask_mods: read one, change a line, and have your own.

Each is a function that makes one. `offset` is S - T where the queries are the last T of S positions, as in decoding.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "alibi",
    "alibi_slopes",
    "causal",
    "dilated",
    "document_mask",
    "prefix_lm",
    "relative_bias",
    "sinks",
    "sliding_window",
    "soft_cap",
]


def causal(offset: int = 0):
    """mask_mod: a query sees the keys up to its own position (Vaswani et al. 2017, arXiv:1706.03762).

    >>> [causal()(0, 0, 1, k) for k in range(3)]
    [True, True, False]
    """

    def mask(b, h, q, k):
        return k <= q + offset

    return mask


def sliding_window(n: int, offset: int = 0):
    """mask_mod: a query sees its own position and the n - 1 before it (Beltagy et al. 2020, arXiv:2004.05150).

    >>> [sliding_window(2)(0, 0, 2, k) for k in range(4)]
    [False, True, True, False]
    """
    _at_least("n", n, 1)

    def mask(b, h, q, k):
        return (k <= q + offset) & (q + offset - k < n)

    return mask


def prefix_lm(prefix_lengths):
    """mask_mod: causal, but all see the first prefix_lengths[b] keys (Raffel et al. 2019, arXiv:1910.10683).

    `prefix_lengths` is (B,) integers.

    >>> [bool(prefix_lm([2])(0, 0, 0, k)) for k in range(3)]
    [True, True, False]
    """
    lengths = _integers("prefix_lengths", prefix_lengths, 1)

    def mask(b, h, q, k):
        return (k <= q) | (k < lengths[b])

    return mask


def document_mask(document_ids):
    """mask_mod: queries see the keys of their own document, of several packed into a row (Krell et al. 2021,
    arXiv:2107.02027).

    `document_ids` is (T,) or (B, T) integers; combine it with `causal()` by `and_masks`.

    >>> [bool(document_mask([0, 0, 1])(0, 0, 1, k)) for k in range(3)]
    [True, True, False]
    """
    ids = np.asarray(document_ids)
    ids = _integers("document_ids", ids, 1 if ids.ndim == 1 else 2)
    if ids.ndim == 1:

        def mask(b, h, q, k):
            return ids[q] == ids[k]

    else:

        def mask(b, h, q, k):
            return ids[b, q] == ids[b, k]

    return mask


def dilated(window: int, stride: int):
    """mask_mod: causal, every stride-th key of the last window * stride (Beltagy et al. 2020, arXiv:2004.05150).

    >>> [k for k in range(12) if dilated(3, 2)(0, 0, 9, k)]
    [5, 7, 9]
    """
    _at_least("window", window, 1)
    _at_least("stride", stride, 1)
    reach = window * stride

    def mask(b, h, q, k):
        return (k <= q) & (q - k < reach) & ((q - k) % stride == 0)

    return mask


def sinks(n: int, window: int, offset: int = 0):
    """mask_mod: causal, the first n keys and the last `window` (StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).

    >>> [k for k in range(12) if sinks(2, 3)(0, 0, 9, k)]
    [0, 1, 7, 8, 9]
    """
    _at_least("n", n, 0)
    _at_least("window", window, 1)

    def mask(b, h, q, k):
        return (k <= q + offset) & ((k < n) | (q + offset - k < window))

    return mask


def alibi(slopes):
    """score_mod: score + slope[h] (k - q), a penalty that grows with distance (Press et al. 2021, arXiv:2108.12409).

    `slopes` is (H,) floats, or the number of heads: then they are `alibi_slopes(n_head)`.

    >>> alibi(1)(0.0, 0, 0, 300, 44)
    np.float32(-1.0)
    """
    slopes = alibi_slopes(slopes) if isinstance(slopes, int) else _floats("slopes", slopes, 1)

    def score_mod(score, b, h, q, k):
        return score + slopes[h] * (k - q)

    return score_mod


def alibi_slopes(n_head: int) -> np.ndarray:
    """The slopes of `alibi` for n_head heads: 2^(-8 i / n) for i = 1 ... n, n a power of two.

    For another number, those of the next lower power of two, n, then every other one of 2n.

    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    _at_least("n_head", n_head, 1)
    n = 2 ** (n_head.bit_length() - 1)
    exact = 2.0 ** (-8 / n * np.arange(1, n + 1))
    between = 2.0 ** (-4 / n * np.arange(1, 2 * (n_head - n), 2))
    return np.concatenate([exact, between]).astype(np.float32)


def soft_cap(cap: float):
    """score_mod: cap tanh(score / cap), which keeps scores within +-cap (Gemma 2, arXiv:2408.00118).

    >>> float(soft_cap(30.0)(1e6, 0, 0, 0, 0))
    30.0
    """
    cap = float(cap)
    if not cap > 0:
        raise ValueError(f"cap is {cap}; expected a number above 0")

    def score_mod(score, b, h, q, k):
        return cap * np.tanh(score / cap)

    return score_mod


def relative_bias(table):
    """score_mod: score + table[h, q - k + n - 1], a bias for each distance q - k from 1 - n to n - 1; greater ones
    count as the greatest (Shaw et al. 2018, arXiv:1803.02155; Raffel et al. 2019, arXiv:1910.10683).

    `table` is (H, 2 n - 1) floats; it is read in place, so a training loop may write to it.

    >>> relative_bias(np.array([[1, 2, 3]], np.float32))(0.0, 0, 0, 5, 4)
    np.float32(3.0)
    """
    table = _floats("table", table, 2)
    if table.shape[1] % 2 == 0:
        raise ValueError(f"table has shape {table.shape}; expected (H, 2 n - 1) for distances from 1 - n to n - 1")
    largest = table.shape[1] // 2

    def score_mod(score, b, h, q, k):
        return score + table[h, np.clip(q - k, -largest, largest) + largest]

    return score_mod


def _integers(name: str, values, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim != ndim:
        raise ValueError(f"{name} is an array of {array.dtype} with shape {array.shape}; expected {ndim}-d integers")
    return np.ascontiguousarray(array)


def _floats(name: str, values, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    array = array if array.dtype.kind == "f" else array.astype(np.float32)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimensions")
    return np.ascontiguousarray(array)


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of {least} or more")
