"""A cache of keys and values with room for so many rows and tokens, whose rows come and go independently."""

from __future__ import annotations

import copy

import numpy as np

from minilm import backend
from minilm.autograd import Tensor

from .cache import KeyValueCache, check_alike, refuse_gradients

__all__ = ["StaticCache"]


class StaticCache(KeyValueCache):
    """Room for `capacity` tokens in each of `rows` rows, taken once; each row has a length of its own.

    A row's tokens lie at its places 0 to lengths[row] - 1, and new ones come behind them: row by row, so that a row can
    be at its first token while another is at its thousandth. Positions and masks follow from the lengths; there is no
    padding (rows of equal length may have an attention mask all the same). `cache.rows(start, stop)` is a cache of some
    rows that shares the room and the lengths: what a model computes is for those rows only. `free` empties a row,
    `copy` moves what a row holds to another, so that those in use stay side by side:

        cache = model.new_cache(capacity=512, implementation="static", rows=8)
        model(prompt[None], cache=cache.rows(2, 3), logits_to_keep=1)   # row 2 reads its prompt
        model(tokens[:, None], cache=cache.rows(0, 3))                   # rows 0, 1 and 2 go on by a token each
        cache.copy(2, 0), cache.free(2)                                  # row 0 is done: row 2 takes its place

    Raises ValueError for more tokens than there is room for, and other rows than the cache's.

    >>> cache, x = StaticCache(n_layer=1, rows=2, capacity=4), Tensor(np.ones((1, 1, 3, 2)))
    >>> k, v = cache.rows(1, 2).append(0, x, x)
    >>> k.shape, cache.lengths.tolist()
    ((1, 1, 3, 2), [0, 3])
    """

    def __init__(self, n_layer: int, rows: int, capacity: int) -> None:
        if rows < 1 or capacity < 1:
            raise ValueError(f"a static cache has at least a row and room for a token; got {rows} and {capacity}")
        super().__init__(n_layer, capacity)
        self._n_rows, self._at = rows, slice(0, rows)
        self._lengths = np.zeros((n_layer, rows), np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each row holds (rows,); not to be written to."""
        return self._lengths[-1]

    @property
    def ragged(self) -> bool:
        """Whether the rows are of different lengths."""
        return bool((self.lengths != self.lengths[0]).any())

    def __len__(self) -> int:
        """The length of the longest row."""
        return int(self.lengths.max())

    @property
    def buffers(self) -> tuple:
        """Each layer's keys, then each layer's values, (rows, Hk, capacity, D); None where none have come yet."""
        return (*self._keys, *self._values)

    def count(self, count: int) -> None:
        """Counts `count` tokens a row that were written to the buffers of all layers."""
        self._lengths += count

    def positions(self, n: int) -> np.ndarray:
        """The positions (rows, n) of the next n tokens of each row."""
        return self.lengths[:, None] + np.arange(n)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens (rows, Hk, T, D) to each row; all keys and values, (rows, Hk, S, D), S the longest row's length.

        What lies beyond a row's length is nothing.
        """
        refuse_gradients(k, v)
        starts, n = self._lengths[layer], k.shape[2]
        stop = int(starts.max()) + n
        if stop > self.capacity:
            raise ValueError(f"a row of the cache has room for {self.capacity} tokens; it was to take up {stop}")
        found = []
        for buffers, new in ((self._keys, k.data), (self._values, v.data)):
            if buffers[layer] is None:
                shape = self._n_rows, new.shape[1], self.capacity, new.shape[3]
                buffers[layer] = backend.array_module(new).zeros(shape, new.dtype)
            rows = buffers[layer][self._at]
            check_alike(rows, new, len(starts))
            if (starts == starts[0]).all():
                rows[:, :, stop - n : stop] = new
            else:
                xp = backend.array_module(new)
                places = xp.asarray(starts[:, None] + np.arange(n))
                rows[xp.arange(len(starts))[:, None], :, places] = new.swapaxes(1, 2)
            found.append(Tensor(rows[:, :, :stop]))
        starts += n
        return found[0], found[1]

    def attend(self, layer: int, k: Tensor, v: Tensor, seen: dict) -> tuple[Tensor, Tensor, dict]:
        n = k.shape[2]
        k, v = self.append(layer, k, v)
        stops = self._lengths[layer]
        if (stops == stops[0]).all():
            return k, v, seen
        window = seen.get("window")
        seen = {name: value for name, value in seen.items() if name not in ("causal", "window")}
        if n == 1 and window is None:
            return k, v, {**seen, "key_lengths": stops}
        query, key = stops[:, None, None] - n + np.arange(n)[:, None], np.arange(k.shape[2])
        mask = (key <= query) if window is None else (key <= query) & (key > query - window)
        return k, v, {**seen, "attn_mask": backend.array_module(k.data).asarray(mask[:, None])}

    def rows(self, start: int, stop: int) -> StaticCache:
        """A cache of rows start to stop - 1, which shares their room and lengths."""
        if not 0 <= start < stop <= self._lengths.shape[1]:
            raise ValueError(f"the cache has rows 0 to {self._lengths.shape[1] - 1}; got {start} to {stop - 1}")
        part = copy.copy(self)  # with the same lists of buffers: the first to need one makes it for all
        part._lengths, part._at = self._lengths[:, start:stop], slice(self._at.start + start, self._at.start + stop)
        return part

    def free(self, row: int) -> None:
        """Empties a row."""
        self._lengths[:, row] = 0

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Makes row `target` hold the first `length` tokens (None: all) of row `source`."""
        length = int(self.lengths[source]) if length is None else length
        if not 0 <= length <= self.lengths[source]:
            raise ValueError(f"row {source} has {self.lengths[source]} tokens, of which {length} can't be copied")
        for buffers in (self._keys, self._values):
            for buffer in buffers:
                if buffer is not None and source != target:
                    rows = buffer[self._at]
                    rows[target, :, :length] = rows[source, :, :length]
        self._lengths[:, target] = length

    def truncate(self, length) -> None:
        """Forgets all but the first `length` tokens of each row: one number, or one a row."""
        length = np.broadcast_to(length, self.lengths.shape)
        if (length < 0).any() or (length > self.lengths).any():
            raise ValueError(f"the rows have {self.lengths} tokens, of which {length} can't be kept")
        self._lengths[:] = length

    def select(self, rows) -> None:
        """As the base class's; raises ValueError for a part of a cache, whose rows others use."""
        if self._at != slice(0, self._n_rows):
            raise ValueError("these rows are a part of a cache; select rows of the whole")
        stop = len(self)
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                if buffer is not None:
                    moved = backend.array_module(buffer).zeros((len(rows), *buffer.shape[1:]), buffer.dtype)
                    moved[:, :, :stop] = buffer[rows, :, :stop]
                    buffers[layer] = moved
        self._lengths = self._lengths[:, rows]
        self._n_rows, self._at = len(rows), slice(0, len(rows))
