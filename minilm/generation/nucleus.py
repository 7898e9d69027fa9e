"""The filters that keep the fewest tokens with a probability of p between them.

A few hundred tokens are nearly always enough, so no more are sorted until these turn out to be too few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from minilm_kernels.ordering import first_places

from .processors import log_probabilities

__all__ = ["top_p_filter", "typical_p_filter"]

_AT_FIRST, _MORE = 256, 8  # how many tokens are sorted, and by what factor more if they don't do


def top_p_filter(rows: Sequence[np.ndarray], scores: np.ndarray, p: float) -> np.ndarray:
    """-inf for all but the fewest most likely tokens that together have probability p (Holtzman et al. 2019).

    https://arxiv.org/abs/1904.09751. A token goes if it and all less likely ones have 1 - p or less between them.

    >>> top_p_filter([], np.log([[0.1, 0.5, 0.4]]), 0.8).round(2)
    array([[ -inf, -0.69, -0.92]])
    """
    return _of_each_row(scores, lambda row: _likeliest(row, p))


def typical_p_filter(rows: Sequence[np.ndarray], scores: np.ndarray, p: float) -> np.ndarray:
    """-inf for all but the fewest most typical tokens that together have probability p (Meister et al. 2022).

    https://arxiv.org/abs/2202.00666. Typical is what surprises as much as is to be expected: the tokens are taken in
    the order of |-log probability - entropy|, and those as typical as the last one stay as well.
    """
    return _of_each_row(scores, lambda row: _most_typical(row, p))


def _of_each_row(scores: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The scores (..., V) of the tokens that `choose` names or marks in each row; -inf for the others."""
    filtered = np.full_like(scores, -np.inf)
    for row, left in zip(scores.reshape(-1, scores.shape[-1]), filtered.reshape(-1, scores.shape[-1])):
        there = np.flatnonzero(row > -np.inf)  # few of many, after another filter
        if there.size:
            kept = there[choose(row[there])]
            left[kept] = row[kept]
    return filtered


def _likeliest(scores: np.ndarray, p: float) -> np.ndarray:
    weights = np.exp(np.subtract(scores, scores.max(), dtype=np.float64))
    total, count = weights.sum(), _AT_FIRST
    bound = (1 - p) * total
    while True:
        last = scores.size - 1  # of equal ones the last is taken first
        places = last - first_places(-scores[::-1], min(count, scores.size))
        among = weights[places]
        less_likely = total - among.sum() if count < scores.size else 0.0
        if less_likely <= bound or count >= scores.size:
            break
        count *= _MORE
    up_to = less_likely + np.cumsum(among[::-1])[::-1]
    up_to[0] = np.inf  # the likeliest always stays
    return places[up_to > bound]


def _most_typical(scores: np.ndarray, p: float) -> np.ndarray:
    logarithms = log_probabilities(scores)
    weights = np.exp(logarithms)
    entropy = -(np.where(weights > 0, logarithms, 0) * weights).sum()
    oddness = np.abs(-logarithms - entropy)
    count = _AT_FIRST
    while True:
        places = np.argpartition(oddness, count)[:count] if count < scores.size else np.arange(scores.size)
        places = places[np.lexsort((places, oddness[places]))]
        up_to = np.cumsum(weights[places])
        if up_to[-1] >= p or count >= scores.size:
            break
        count *= _MORE
    last = min(int((up_to < p).sum()), places.size - 1)
    return oddness <= oddness[places[last]]
