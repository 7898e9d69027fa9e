"""From a model's logits to the next token: the filters and penalties, and the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilm import backend

__all__ = [
    "SamplingOptions", "ban_words", "force", "log_probabilities", "min_p_filter", "penalize_repetition", "require",
    "sample", "top_k_filter", "top_p_filter",
]  # fmt: skip


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen; names, meaning and order are transformers'.

    The repetition penalty comes first, then the bad words, which never come: both hold for greedy decoding as well. For
    sampling follow the temperature, top k, top p and min p, each on what the one before it left (none of them changes
    which token is the likeliest).
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    bad_words_ids: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        require(
            self.temperature > 0,
            f"temperature must be above 0 (for greedy decoding: do_sample=False); got {self.temperature}",
        )
        require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, or None for all; got {self.top_k}")
        require(self.top_p is None or 0 < self.top_p <= 1, f"top_p must lie in (0, 1]; got {self.top_p}")
        require(self.min_p is None or 0 <= self.min_p <= 1, f"min_p must lie in [0, 1]; got {self.min_p}")
        require(self.repetition_penalty > 0, f"repetition_penalty must be above 0; got {self.repetition_penalty}")
        words = all(isinstance(word, Sequence) and len(word) for word in self.bad_words_ids)
        require(words, f"bad_words_ids is a list of words, each a list of tokens; got {self.bad_words_ids}")

    def choose(self, scores: np.ndarray, stream: backend.Generator) -> np.ndarray:
        """The next token (B,) by scores (B, V): drawn, or the likeliest."""
        return sample(scores, stream.uniform((len(scores),), dtype="float64")) if self.do_sample else scores.argmax(-1)

    def scores(self, logits: np.ndarray, seen: list[np.ndarray]) -> np.ndarray:
        """The logits (B, V) after the penalty and, for sampling, the temperature and the filters.

        `seen` are the tokens so far in each row.
        """
        if self.repetition_penalty != 1:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if self.bad_words_ids:
            logits = ban_words(logits, seen, self.bad_words_ids)
        if not self.do_sample:
            return logits
        logits = logits / self.temperature
        if self.top_k is not None:
            logits = top_k_filter(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            logits = top_p_filter(logits, self.top_p)
        if self.min_p:
            logits = min_p_filter(logits, self.min_p)
        return logits


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message where a condition on the caller's options does not hold."""
    if not condition:
        raise ValueError(message)


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


def ban_words(logits: np.ndarray, seen: list[np.ndarray], words: Sequence[Sequence[int]]) -> np.ndarray:
    """-inf for each token that would complete one of the `words`, sequences of tokens, in its row of logits (B, V)."""
    out = logits.copy()
    for *beginning, last in words:
        for row, tokens in zip(out, seen):
            if not beginning or list(tokens[-len(beginning) :]) == beginning:
                row[last] = -np.inf
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


def force(scores: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Scores (B, V) by which only these tokens can come next."""
    forced = np.full_like(scores, -np.inf)
    forced[:, tokens] = 0
    return forced
