"""What OpenAI's API changes logits by: penalties on what was written already, and a bias a token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["add_bias", "penalize_counts"]


def penalize_counts(
    logits: np.ndarray, written: list[np.ndarray], frequency: float = 0.0, presence: float = 0.0
) -> np.ndarray:
    """Logits (B, V) lowered for the new tokens so far in each row, `written`: B arrays of ids.

        logit[j] - frequency * count[j] - presence * (count[j] > 0)

    The formula of OpenAI's API reference ("frequency and presence penalties"). Negative numbers ask for repetition.

    >>> penalize_counts(np.zeros((1, 3)), [np.array([2, 0, 2])], frequency=0.5, presence=0.25).tolist()
    [[-0.75, 0.0, -1.25]]
    """
    out = logits.copy()
    for row, tokens in zip(out, written):
        chosen, counts = np.unique(tokens, return_counts=True)
        row[chosen] -= frequency * counts + presence
    return out


def add_bias(logits: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """Logits (B, V) with numbers added to those of single tokens.

    >>> add_bias(np.zeros((1, 3)), {1: -100.0}).tolist()
    [[0.0, -100.0, 0.0]]
    """
    out = logits.copy()
    out[:, list(bias)] += list(bias.values())
    return out
