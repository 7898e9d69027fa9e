"""A cache that outlives a call, for texts that begin alike: a conversation, or a prompt that all questions share."""

from __future__ import annotations

import numpy as np

from .processors import require

__all__ = ["PrefixCache"]


class PrefixCache:
    """What a model keeps of the tokens of one text, for the next text that begins with the same ones.

    Given to `generate` as `past_key_values`, again and again: each call computes only what follows the longest common
    beginning of its tokens (1, T) and those of the call before. Tokens are compared, so that nothing has to match; the
    model must be the same one, with the same weights.

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    >>> prefix = PrefixCache()
    >>> history = model.generate(np.array([[1, 2, 3]]), 4, past_key_values=prefix)
    >>> prefix.common(history[0]), prefix.common([1, 2, 4])
    (6, 2)
    """

    def __init__(self) -> None:
        self._model, self._cache, self._tokens = None, None, np.empty(0, np.int64)

    def common(self, ids) -> int:
        """How many of the first tokens `ids` (T,) need not be read again."""
        known = self._tokens[: 0 if self._cache is None else len(self._cache)]
        n = min(len(known), len(ids) - 1)  # at least one token has to be read, to know what comes next
        differ = np.flatnonzero(known[:n] != np.asarray(ids)[:n])
        return int(differ[0]) if len(differ) else max(n, 0)

    def forget(self) -> None:
        """Gives the memory back."""
        self._cache = None

    def take(self, model, ids: np.ndarray):
        """The cache with what is known of `ids` (T,), or a new one."""
        require(
            self._model in (None, model), "this cache was filled by another model: use a PrefixCache for each of them"
        )
        n = self.common(ids)
        going_back = self._cache is not None and n < len(self._cache)
        if self._cache is None or (going_back and not hasattr(self._cache, "truncate")):  # a recurrent state can't
            self._cache = model.new_cache()
        else:
            self._cut(n)
        self._model, self._tokens = model, ids
        return self._cache

    def _cut(self, n: int) -> None:
        if hasattr(self._cache, "truncate"):  # even to its own length: an interrupted step leaves some layers longer
            self._cache.truncate(n)

    def follow(self, ids: np.ndarray) -> None:
        """Notes the tokens (T,) that the cache is about to take up."""
        self._tokens = ids
