"""From a model's logits to the next token: the filters and penalties, and the draw."""

from __future__ import annotations

import numpy as np

__all__ = ["log_probabilities", "min_p_filter", "penalize_repetition", "sample", "top_k_filter", "top_p_filter"]


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def penalize_repetition(logits: np.ndarray, seen: list[np.ndarray], penalty: float) -> np.ndarray:
    """Logits (B, V) of tokens already `seen` in each row divided (if positive, else multiplied) by `penalty`.

    Keskar et al. 2019, https://arxiv.org/abs/1909.05858.
    """
    out = logits.copy()
    for row, tokens in zip(out, seen):
        chosen = np.unique(tokens)
        row[chosen] = np.where(row[chosen] > 0, row[chosen] / penalty, row[chosen] * penalty)
    return out


def top_k_filter(logits: np.ndarray, k: int) -> np.ndarray:
    """-inf for all but the k largest logits of each row (and those equal to the k-th)."""
    if k >= logits.shape[-1]:
        return logits
    kth = np.partition(logits, -k, axis=-1)[..., -k, None]
    return np.where(logits < kth, -np.inf, logits)


def top_p_filter(logits: np.ndarray, p: float) -> np.ndarray:
    """-inf for all but the fewest most likely tokens that together have probability p (Holtzman et al. 2019).

    https://arxiv.org/abs/1904.09751. A token goes if it and all less likely ones have 1 - p or less between them.
    """
    order = np.argsort(logits, axis=-1, kind="stable")  # the least likely first, so that the small sums are exact
    up_to = np.cumsum(np.exp(np.take_along_axis(log_probabilities(logits), order, axis=-1)), axis=-1)
    drop = np.zeros(logits.shape, bool)
    np.put_along_axis(drop, order[..., :-1], up_to[..., :-1] <= 1 - p, axis=-1)  # the likeliest always stays
    return np.where(drop, -np.inf, logits)


def min_p_filter(logits: np.ndarray, p: float) -> np.ndarray:
    """-inf for tokens less than p times as likely as the likeliest (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082)."""
    return np.where(logits < logits.max(axis=-1, keepdims=True) + np.log(p), -np.inf, logits)


def sample(logits: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """One token a row of logits (B, V), by the inverse of the distribution function at `uniforms` (B,) in [0, 1)."""
    cumulative = np.cumsum(np.exp(log_probabilities(logits)), axis=-1)
    cumulative /= cumulative[:, -1:]  # so that it reaches 1 at the last token that was not filtered out
    return (cumulative > uniforms[:, None]).argmax(axis=-1)
