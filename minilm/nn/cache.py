"""What decoding keeps of the tokens so far: their keys and values, in buffers that grow, stay, or forget.

All caches are used alike: a model gives each layer's new keys and values to `attend`, and gets those to attend to.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from minilm import backend
from minilm.autograd import Tensor

__all__ = ["KeyValueCache", "SlidingWindowCache", "StaticCache"]

_SLACK = 64  # so many tokens more than its window a sliding cache keeps, that it need not move the rest at every one


class KeyValueCache:
    """Keys and values of the tokens so far, for each layer, in buffers that grow by doubling.

    `append(layer, k, v)` stores (B, Hk, T, D) and returns all of that layer's keys and values, (B, Hk, S, D), without
    history: it raises RuntimeError where gradients are recorded. `capacity` tokens get their room at once.
    """

    ragged = False  # whether the rows are of different lengths

    def __init__(self, n_layer: int, capacity: int = 0) -> None:
        self.capacity = capacity
        self._keys: list = [None] * n_layer
        self._values: list = [None] * n_layer
        self._lengths = [0] * n_layer

    def __len__(self) -> int:
        """How many tokens the cache has seen."""
        return self._lengths[-1]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens to those of `layer`, and returns them all."""
        _refuse_gradients(k, v)
        start, stop = self._lengths[layer], self._lengths[layer] + k.shape[2]
        self._keys[layer] = self._stored(self._keys[layer], k.data, start, stop)
        self._values[layer] = self._stored(self._values[layer], v.data, start, stop)
        self._lengths[layer] = stop
        return Tensor(self._keys[layer][:, :, :stop]), Tensor(self._values[layer][:, :, :stop])

    def attend(self, layer: int, k: Tensor, v: Tensor, seen: dict) -> tuple[Tensor, Tensor, dict]:
        """As `append`, and what attention has to know of which query sees which of these keys.

        `seen` are its settings for S keys of which the last T are the new tokens'.
        """
        return *self.append(layer, k, v), seen

    def make_room(self, count: int) -> tuple[list, list]:
        """The layers' buffers of keys and of values, (B, Hk, room, D), with room behind the tokens for `count` more.

        For a kernel that writes them there itself; `count` then tells that it has. Layers must have tokens already.
        """
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                length = self._lengths[layer]
                buffers[layer] = self._with_room(buffer, buffer, length, length + count)
        return self._keys, self._values

    def count(self, count: int) -> None:
        """Counts `count` tokens that were written to the buffers of all layers."""
        self._lengths = [length + count for length in self._lengths]

    def _stored(self, buffer, new, start: int, stop: int):
        if buffer is not None:
            _check_alike(buffer, new, buffer.shape[0])
        buffer = self._with_room(buffer, new, start, stop)
        buffer[:, :, start:stop] = new
        return buffer

    def _with_room(self, buffer, like, start: int, stop: int):
        """`buffer` or, where it is too short for `stop` tokens, a larger one with its first `start`."""
        if buffer is not None and buffer.shape[2] >= stop:
            return buffer
        batch, heads, _, width = like.shape
        room = max(self.capacity, stop if buffer is None else 2 * stop)
        larger = backend.array_module(like).empty((batch, heads, room, width), like.dtype)
        if buffer is not None:
            larger[:, :, :start] = buffer[:, :, :start]
        return larger

    def select(self, rows) -> None:
        """Keeps the batch rows given, in that order (repeats allowed): for beam search and for finished rows."""
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                if buffer is not None:
                    buffers[layer] = buffer[rows]

    def truncate(self, length: int) -> None:
        """Forgets all but the first `length` tokens. Raises ValueError for more than there are."""
        if not 0 <= length <= len(self):
            raise ValueError(f"the cache has {len(self)} tokens, of which {length} can't be kept")
        self._lengths = [length] * len(self._lengths)


class SlidingWindowCache(KeyValueCache):
    """A cache that keeps of each layer only the keys that later tokens see: those in the layer's window.

    `windows` has for each layer how many keys a query sees, itself included; None: all. What attention computes is the
    same as with a cache that keeps everything.
    """

    def __init__(self, windows: Sequence[int | None], capacity: int = 0) -> None:
        super().__init__(len(windows), capacity)
        self.windows, self._dropped = tuple(windows), [0] * len(windows)

    def __len__(self) -> int:
        return self._lengths[-1] + self._dropped[-1]

    def attend(self, layer: int, k: Tensor, v: Tensor, seen: dict) -> tuple[Tensor, Tensor, dict]:
        seen, dropped = dict(seen), self._dropped[layer]
        if dropped and seen.get("attn_mask") is not None:
            seen["attn_mask"] = seen["attn_mask"][..., dropped:]
        if dropped and seen.get("key_lengths") is not None:
            seen["key_lengths"] = np.maximum(seen["key_lengths"] - dropped, 0)
        return *self.append(layer, k, v), seen

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().append(layer, k, v)
        window, length = self.windows[layer], self._lengths[layer]
        if window is not None and length > window + _SLACK:
            for buffers in (self._keys, self._values):
                buffer = buffers[layer]
                moved = backend.array_module(buffer).empty(
                    (*buffer.shape[:2], window + _SLACK, buffer.shape[3]), buffer.dtype
                )
                moved[:, :, : window - 1] = buffer[:, :, length - window + 1 : length]
                buffers[layer] = moved
            self._lengths[layer], self._dropped[layer] = window - 1, self._dropped[layer] + length - window + 1
        return found

    def truncate(self, length: int) -> None:
        """As the base class's; raises ValueError where the window of the next token has been dropped."""
        known = [kept + dropped for kept, dropped in zip(self._lengths, self._dropped)]
        if not 0 <= length <= known[-1]:
            raise ValueError(f"the cache has seen {known[-1]} tokens, of which {length} can't be kept")
        for window, dropped in zip(self.windows, self._dropped):
            if dropped and length - dropped < window - 1:
                raise ValueError(
                    f"a sliding-window cache can't go back to {length} tokens: it has dropped the first {dropped}, and "
                    "the next token would see some of them. Use a dynamic cache"
                )
        self._lengths = [length - dropped for dropped in self._dropped]


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

    def positions(self, n: int) -> np.ndarray:
        """The positions (rows, n) of the next n tokens of each row."""
        return self.lengths[:, None] + np.arange(n)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens (rows, Hk, T, D) to each row; all keys and values, (rows, Hk, S, D), S the longest row's length.

        What lies beyond a row's length is nothing.
        """
        _refuse_gradients(k, v)
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
            _check_alike(rows, new, len(starts))
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


def _refuse_gradients(k: Tensor, v: Tensor) -> None:
    if k.requires_grad or v.requires_grad:
        raise RuntimeError(
            "a cache of keys and values carries no gradients; decode under minilm.no_grad(), train without a cache"
        )


def _check_alike(buffer, new, rows: int) -> None:
    if (rows, buffer.shape[1], buffer.shape[3]) != (new.shape[0], new.shape[1], new.shape[3]):
        raise ValueError(f"the cache holds keys and values like {buffer.shape}; got some like {new.shape}")
