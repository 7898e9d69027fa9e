"""What is done to the scores of the next tokens before one is chosen: penalties, bans and filters.

Each is a function of the tokens so far, a row of them for each text (padding left out), and scores (B, V), logits or
log probabilities; it returns new scores, -inf for what can't come, and leaves those it was given as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "LogitsProcessors", "ban_ngrams", "ban_until", "ban_words", "divide", "force", "log_probabilities", "min_p_filter",
    "penalize_repetition", "require", "top_k_filter",
]  # fmt: skip

Rows = Sequence[np.ndarray]
Processor = Callable[[Rows, np.ndarray], np.ndarray]


class LogitsProcessors:
    """All that a call of `generate` does to the scores, in transformers' order.

    First come penalties and bans, in the end the filters. Between them are functions (input_ids, scores) -> scores that
    get all tokens (B, T), padding as well: those that go by the number of tokens, and the user's own.

    >>> from functools import partial
    >>> no_zero = lambda ids, scores: np.where(np.arange(3) == 0, -np.inf, scores)
    >>> processors = LogitsProcessors([partial(penalize_repetition, penalty=2.0)], [no_zero], [])
    >>> processors(np.array([[2]]), np.array([[3.0, 2.0, 1.0]])).tolist()
    [[-inf, 2.0, 0.5]]
    """

    def __init__(self, first: Sequence[Processor], functions: Sequence[Callable], last: Sequence[Processor]) -> None:
        self.first, self.functions, self.last = list(first), list(functions), list(last)

    def __call__(self, ids: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """New scores (B, V) for tokens `ids` (B, T), of which those with 0 in `mask` (B, T) are padding."""
        rows = ids
        if mask is not None and self.first:
            rows = [row[real != 0] for row, real in zip(ids, mask)]
        for process in self.first:
            scores = process(rows, scores)
        for process in self.functions:
            scores = _checked(process, process(ids, scores), scores)
        for process in self.last:
            scores = process(rows, scores)
        return scores


def _checked(process: Callable, found, scores: np.ndarray) -> np.ndarray:
    name = getattr(process, "__name__", type(process).__name__)
    found = np.asarray(found)
    require(
        found.shape == scores.shape and found.dtype.kind == "f",
        f"the logits processor {name} has to return scores {scores.shape}; got {found.dtype} of shape {found.shape}",
    )
    require(not np.isnan(found).any(), f"the logits processor {name} returned NaN")
    return found


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message where a condition on the caller's options does not hold."""
    if not condition:
        raise ValueError(message)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


# Penalties and bans.


def penalize_repetition(rows: Rows, scores: np.ndarray, penalty: float) -> np.ndarray:
    """Scores (B, V) of tokens that are in their row already divided (if positive, else multiplied) by `penalty`.

    Keskar et al. 2019, https://arxiv.org/abs/1909.05858.
    """
    out = scores.copy()
    for row, tokens in zip(out, rows):
        chosen = np.unique(tokens)
        row[chosen] = np.where(row[chosen] > 0, row[chosen] / penalty, row[chosen] * penalty)
    return out


def ban_ngrams(rows: Rows, scores: np.ndarray, n: int, source: Rows | None = None) -> np.ndarray:
    """-inf for tokens that would make the last n of a row n tokens that are in it already (Paulus et al. 2017).

    With `source` (arrays of what an encoder read; the rows may be several for each): n tokens that are in there.
    https://arxiv.org/abs/1705.04304.
    """
    out, copies = scores.copy(), 1 if source is None else len(rows) // len(source)
    for i, tokens in enumerate(rows):
        known = tokens if source is None else source[i // copies]
        if len(known) >= n and len(tokens) >= n - 1:
            seen = np.lib.stride_tricks.sliding_window_view(known, n)
            again = (seen[:, : n - 1] == tokens[len(tokens) - n + 1 :]).all(axis=1)
            out[i, seen[again, -1]] = -np.inf
    return out


def ban_words(rows: Rows, scores: np.ndarray, words: Sequence[Sequence[int]]) -> np.ndarray:
    """-inf for each token that would complete one of the `words`, sequences of tokens, in its row."""
    out = scores.copy()
    for *beginning, last in words:
        for row, tokens in zip(out, rows):
            if not beginning or list(tokens[-len(beginning) :]) == beginning:
                row[last] = -np.inf
    return out


def ban_until(ids: np.ndarray, scores: np.ndarray, length: int, tokens: list[int]) -> np.ndarray:
    """-inf for `tokens`, those that end a text, as long as there are fewer than `length` tokens, padding included."""
    if ids.shape[1] >= length:
        return scores
    out = scores.copy()
    out[:, [token for token in tokens if 0 <= token < scores.shape[1]]] = -np.inf  # -1, say, is no token: no end
    return out


def force(ids: np.ndarray, scores: np.ndarray, length: int, tokens: list[int]) -> np.ndarray:
    """Where there are `length` tokens, only `tokens` can come next."""
    if ids.shape[1] != length:
        return scores
    forced = np.full_like(scores, -np.inf)
    forced[:, tokens] = 0
    return forced


# Filters.


def divide(rows: Rows, scores: np.ndarray, temperature: float) -> np.ndarray:
    """The scores divided by the temperature."""
    return scores / temperature


def top_k_filter(rows: Rows, scores: np.ndarray, k: int) -> np.ndarray:
    """-inf for all but the k largest scores of each row (and those equal to the k-th)."""
    if k >= scores.shape[-1]:
        return scores
    kth = np.partition(scores, -k, axis=-1)[..., -k, None]
    return np.where(scores < kth, -np.inf, scores)


def min_p_filter(rows: Rows, scores: np.ndarray, p: float) -> np.ndarray:
    """-inf for tokens less than p times as likely as the likeliest (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082)."""
    return np.where(scores < scores.max(axis=-1, keepdims=True) + np.log(p), -np.inf, scores)
