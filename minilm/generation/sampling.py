"""How the next token is chosen: the options, and the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral, Real

import numpy as np

from minilm import backend

from .nucleus import top_p_filter, typical_p_filter
from .processors import (
    Processor,
    ban_ngrams,
    ban_words,
    divide,
    min_p_filter,
    penalize_repetition,
    require,
    top_k_filter,
)

__all__ = ["SamplingOptions", "Streams", "sample"]

_KINDS = {"int": (Integral, "an integer"), "float": (Real, "a number")}  # what annotations say, as text


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen; names, meaning and order are transformers'.

    The repetition penalty comes first, then what never comes: n tokens (`no_repeat_ngram_size`) that are there already,
    and the bad words. All hold for greedy decoding as well. For sampling follow the temperature, top k, top p, min p
    and typical p, each on what the one before it left.

    >>> options = SamplingOptions(do_sample=True, temperature=0.5, top_k=2)
    >>> options.scores(np.array([[1.0, 2.0, 3.0]]), [np.array([0])]).tolist()
    [[-inf, 4.0, 6.0]]
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    bad_words_ids: Sequence[Sequence[int]] | None = None
    typical_p: float | None = None
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        self._check_kinds()
        require(
            self.temperature > 0,
            f"temperature must be above 0 (for greedy decoding: do_sample=False, or --greedy); got {self.temperature}",
        )
        require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, or None for all; got {self.top_k}")
        for name in ("top_p", "typical_p"):
            share = getattr(self, name)
            require(share is None or 0 < share <= 1, f"{name} must lie in (0, 1]; got {share}")
        require(self.min_p is None or 0 <= self.min_p <= 1, f"min_p must lie in [0, 1]; got {self.min_p}")
        require(self.repetition_penalty > 0, f"repetition_penalty must be above 0; got {self.repetition_penalty}")
        require(
            self.no_repeat_ngram_size >= 0,
            f"no_repeat_ngram_size is a number of tokens, or 0 for none; got {self.no_repeat_ngram_size}",
        )
        words = all(isinstance(word, Sequence) and len(word) for word in self.bad_words_ids or ())
        require(words, f"bad_words_ids is a list of words, each a list of tokens; got {self.bad_words_ids}")

    def _check_kinds(self) -> None:
        """ValueError for an option that should be a number and is not; tokens may come as lists."""
        for field in fields(self):
            kind, optional, _ = str(field.type).partition(" | None")
            if kind in _KINDS and not field.name.endswith("_token_id"):
                value, (number, what) = getattr(self, field.name), _KINDS[kind]
                fits = isinstance(value, number) or (value is None and optional)
                require(fits, f"{field.name} is {what}{' or None' if optional else ''}; got {value!r}")

    def penalties(self) -> list[Processor]:
        """What is done to the scores whether a token is drawn or the likeliest is taken."""
        found: list[Processor] = []
        if self.repetition_penalty != 1:
            found.append(partial(penalize_repetition, penalty=self.repetition_penalty))
        if self.no_repeat_ngram_size:
            found.append(partial(ban_ngrams, n=self.no_repeat_ngram_size))
        if self.bad_words_ids:
            found.append(partial(ban_words, words=self.bad_words_ids))
        return found

    def filters(self) -> list[Processor]:
        """What is done to them after that, where a token is drawn."""
        found: list[Processor] = []
        if not self.do_sample:
            return found
        if self.temperature != 1:
            found.append(partial(divide, temperature=self.temperature))
        if self.top_k is not None:
            found.append(partial(top_k_filter, k=self.top_k))
        if self.top_p is not None and self.top_p < 1:
            found.append(partial(top_p_filter, p=self.top_p))
        if self.min_p:
            found.append(partial(min_p_filter, p=self.min_p))
        if self.typical_p is not None and self.typical_p < 1:
            found.append(partial(typical_p_filter, p=self.typical_p))
        return found

    def scores(self, logits: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
        """The logits (B, V) after all of these, the tokens so far in each row being `seen`."""
        for process in (*self.penalties(), *self.filters()):
            logits = process(seen, logits)
        return logits

    def choose(self, scores: np.ndarray, stream: backend.Generator | Streams) -> np.ndarray:
        """The next token (B,) by scores (B, V): drawn, or the likeliest."""
        return sample(scores, stream.uniform((len(scores),), dtype="float64")) if self.do_sample else scores.argmax(-1)


class Streams:
    """A random stream for each row, so that what a row draws does not depend on the others."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams = [backend.Generator(int(seed)) for seed in seeds]

    def uniform(self, shape: tuple, dtype: str = "float64") -> np.ndarray:
        """A number in [0, 1) for each row, each from the row's own stream."""
        return np.array([stream.uniform((), dtype=dtype) for stream in self.streams])


def sample(scores: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """One token a row of scores (B, V), by the inverse of the distribution function at `uniforms` (B,) in [0, 1).

    Raises ValueError for a row of which nothing is left.
    """
    chosen = np.empty(len(scores), np.int64)
    for i, (row, uniform) in enumerate(zip(scores, uniforms)):
        highest = row.max()
        if highest == -np.inf:
            raise ValueError("no token can come next: the options leave none, each has a score of -inf")
        left = np.flatnonzero(row > -np.inf)  # few of many, after a filter
        cumulative = np.cumsum(np.exp(np.subtract(row[left], highest, dtype=np.float64)))
        cumulative /= cumulative[-1]  # so that it reaches 1 at the last of them
        chosen[i] = left[np.searchsorted(cumulative, uniform, side="right")]
    return chosen
