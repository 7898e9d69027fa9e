"""An n-gram language model with Kneser-Ney smoothing: what neural language models had to beat."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

__all__ = ["NGram"]


class NGram:
    """P(w | h) by counting, interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7).

        P_n(w | h) = max(c(h w) - D, 0) / c(h .) + D N(h .) / c(h .) P_{n-1}(w | h without its first token)

    c counts occurrences for the highest order, and below it how many different tokens come before; N(h .) is how many
    different tokens follow h. Each order's discount is D = n1 / (n1 + 2 n2), n1 and n2 being how many of its n-grams
    have the count 1 and 2 (1/2 where none has 1). Below the single tokens stands the uniform distribution, so nothing
    has probability zero.

    >>> model = NGram(vocab_size=4, order=2).fit(np.array([0, 1, 2, 0, 1, 3, 0, 1, 2]))
    >>> model.distribution([0]).round(2)
    array([0.08, 0.84, 0.04, 0.04])
    """

    def __init__(self, vocab_size: int, order: int = 5):
        if vocab_size < 1 or order < 1:
            raise ValueError(f"vocab_size and order are 1 or more; got {vocab_size} and {order}")
        self.vocab_size, self.order = vocab_size, order
        # For each length of the context: context -> token -> count, context -> sum of counts, and the discount.
        self._counts: list[dict[tuple, Counter]] = []
        self._totals: list[dict[tuple, int]] = []
        self._discounts: list[float] = []

    def fit(self, tokens) -> NGram:
        """Counts the n-grams of a text's tokens (N,), integers below vocab_size; returns the model.

        ValueError for fewer tokens than the order, or one out of range.
        """
        tokens = self._checked(tokens)
        if len(tokens) < self.order:
            raise ValueError(f"{len(tokens)} tokens are fewer than the order, {self.order}; give a longer text")
        values = tokens.tolist()
        grams = [Counter(zip(*(values[i:] for i in range(n)))) for n in range(1, self.order + 1)]
        for n in range(self.order - 1):  # how many different tokens come before, instead of how often
            grams[n] = Counter(gram[1:] for gram in grams[n + 1])
        self._counts, self._totals, self._discounts = [], [], []
        for counted in grams:
            followers: dict[tuple, Counter] = defaultdict(Counter)
            for gram, count in counted.items():
                followers[gram[:-1]][gram[-1]] = count
            self._counts.append(dict(followers))
            self._totals.append({context: sum(counter.values()) for context, counter in followers.items()})
            often = Counter(counted.values())
            self._discounts.append(often[1] / (often[1] + 2 * often[2]) if often[1] else 0.5)
        return self

    @property
    def n_parameters(self) -> int:
        """How many counts the model keeps, of all orders: its size, as the number of its weights is a neural one's."""
        return sum(len(followers) for counts in self._counts for followers in counts.values())

    def probability(self, context: Sequence[int], token: int) -> float:
        """P(token | the last order - 1 tokens of context)."""
        context, found = self._context(context), 1 / self.vocab_size
        for n in range(len(context) + 1):
            history = context[len(context) - n :]
            total = self._totals[n].get(history)
            if total is None:  # never seen, nor is any longer one
                break
            followers, discount = self._counts[n][history], self._discounts[n]
            found = (max(followers[token] - discount, 0) + discount * len(followers) * found) / total
        return found

    def distribution(self, context: Sequence[int]) -> np.ndarray:
        """P(. | context) for all tokens (V,), float64."""
        context, found = self._context(context), np.full(self.vocab_size, 1 / self.vocab_size)
        for n in range(len(context) + 1):
            history = context[len(context) - n :]
            total = self._totals[n].get(history)
            if total is None:
                break
            followers, discount = self._counts[n][history], self._discounts[n]
            found *= discount * len(followers) / total
            found[list(followers)] += np.maximum(np.array(list(followers.values())) - discount, 0) / total
        return found

    def loss(self, tokens) -> float:
        """The mean of -log P of each token given those before it: what a neural model's loss is compared with."""
        values = self._checked(tokens).tolist()
        if not values:
            raise ValueError("a loss needs at least one token")
        span = self.order - 1
        return -sum(math.log(self.probability(values[max(0, i - span) : i], t)) for i, t in enumerate(values)) / len(
            values
        )

    def generate(self, input_ids, max_new_tokens: int = 100, seed: int | None = None) -> np.ndarray:
        """`input_ids` (T,) and as many tokens drawn after them: int64 (T + max_new_tokens,)."""
        random, values = np.random.default_rng(seed), self._checked(input_ids).tolist()
        for _ in range(max_new_tokens):
            chances = self.distribution(values)
            values.append(int(random.choice(self.vocab_size, p=chances / chances.sum())))
        return np.array(values, np.int64)

    def _context(self, context: Sequence[int]) -> tuple[int, ...]:
        if not self._counts:
            raise RuntimeError("the model has counted nothing yet; call fit(tokens) first")
        return tuple(context[-(self.order - 1) :]) if self.order > 1 else ()

    def _checked(self, tokens) -> np.ndarray:
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise ValueError(f"tokens are integers in one row; got {tokens.dtype} of shape {tokens.shape}")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            raise ValueError(f"tokens are 0 to {self.vocab_size - 1}; got {tokens.min()} to {tokens.max()}")
        return tokens
