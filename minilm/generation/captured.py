"""The step of decoding as a CUDA graph: a token a row through the whole model in a single launch."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np

from minilm import backend
from minilm.nn import StaticCache
from minilm.nn.static_step import StaticStep

__all__ = ["CapturedDecoding"]

_log = logging.getLogger(__name__)


class CapturedDecoding:
    """A model's logits for one more token in each row of a static cache, recorded at the third call, then launched.

    What differs from step to step, the tokens and the rows' lengths, goes in by an array. A graph belongs to the
    buffers of a cache, and where these are others it is recorded anew. `refused` says why steps are not launched so, if
    they are not; it is logged as well. On the CPU the same function is called each time.
    """

    def __init__(self, model, refused: str | None = None) -> None:
        self.model, self.refused = model, None
        self._cache: StaticCache | None = None
        self._buffers: tuple = ()
        self._graph: backend.Graph | None = None
        self._refuse(refused)

    @property
    def is_recorded(self) -> bool:
        """Whether steps are launched as a graph."""
        return self._graph is not None and self._graph.is_recorded

    def __call__(self, cache: StaticCache, tokens: np.ndarray, vocabulary: int, mask: np.ndarray | None):
        """Logits (B, 1, V) after `tokens` (B, 1), which `cache` takes up; None, and nothing done, where it can't.

        `mask` (B, S) is 0 for padding. It can't where tokens aren't below `vocabulary`, the cache has no tokens or no
        more room: a plain call says what is wrong with that.
        """
        if self.refused is None and mask is not None and not mask.all():
            self._refuse("a padded prompt's mask is another at each step")
        if self.refused is None and self._cache is not cache:
            self._refuse(_reason(self.model, cache))
        fits = 0 < len(cache) < cache.capacity and tokens.min() >= 0 and tokens.max() < vocabulary
        if self.refused is not None or not fits:
            return None
        if not self._is_current(cache):
            self._cache, self._buffers = cache, cache.buffers
            self._graph = backend.Graph(partial(_step, self.model, cache), self.model.device)
        logits = self._graph(np.stack([tokens[:, 0], cache.lengths]).astype(np.int64))
        cache.count(1)
        self._refuse(self._graph.refused)
        return logits

    def _is_current(self, cache: StaticCache) -> bool:
        known, there = self._buffers, cache.buffers
        return self._cache is cache and all(mine is its for mine, its in zip(known, there, strict=True))

    def _refuse(self, reason: str | None) -> None:
        if reason is not None:
            self.refused, self._cache, self._buffers, self._graph = reason, None, (), None
            _log.info("decoding is launched kernel by kernel: %s", reason)


def _reason(model, cache) -> str | None:
    """Why the steps of this model with this cache can't be recorded; None where they can."""
    if type(cache) is not StaticCache:
        return f"a {type(cache).__name__} is no static cache of keys and values"
    if any(any(module.__dict__.get("_forward_hooks", {}).values()) for module in model.modules()):
        return "the model has forward hooks, which are to run at each step"
    return None


def _step(model, cache: StaticCache, numbers):
    """The logits for `numbers` (2, B): the tokens, and how many there are before each."""
    tokens, lengths = numbers[0], numbers[1]
    with backend.unchecked_ranges():
        step = StaticStep(cache, lengths)
        return model(tokens[:, None], position_ids=lengths[:, None], cache=step, logits_to_keep=1).logits.data
