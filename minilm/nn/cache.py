"""What decoding keeps of the tokens so far: their keys and values, in buffers that grow, or that forget.

All caches are used alike: a model gives each layer's new keys and values to `attend`, and gets those to attend to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minilm import backend
from minilm.autograd import Tensor

__all__ = ["KeyValueCache", "SlidingWindowCache", "check_alike", "refuse_gradients"]

_SLACK = 64  # so many tokens more than its window a sliding cache keeps, that it need not move the rest at every one


class KeyValueCache:
    """Keys and values of the tokens so far, for each layer, in buffers that grow by doubling.

    `append(layer, k, v)` stores (B, Hk, T, D) and returns all of that layer's keys and values, (B, Hk, S, D), without
    history: it raises RuntimeError where gradients are recorded. `capacity` tokens get their room at once.

    >>> cache = KeyValueCache(n_layer=1)
    >>> new = Tensor(np.ones((1, 2, 3, 4), np.float32))  # B = 1, 2 heads, 3 tokens, D = 4
    >>> cache.append(0, new, new)[0].shape, cache.append(0, new, new)[0].shape
    ((1, 2, 3, 4), (1, 2, 6, 4))
    >>> cache.truncate(5)
    >>> len(cache)
    5
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
        refuse_gradients(k, v)
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
            check_alike(buffer, new, buffer.shape[0])
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
        if self._keys[0] is not None and np.array_equal(rows, np.arange(self._keys[0].shape[0])):
            return
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

    >>> cache, new = SlidingWindowCache([2]), Tensor(np.ones((1, 1, 100, 4), np.float32))
    >>> k, v = cache.append(0, new, new)
    >>> k, v = cache.append(0, new[:, :, :1], new[:, :, :1])
    >>> len(cache), k.shape  # the last token sees itself and one before it
    (101, (1, 1, 2, 4))
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


def refuse_gradients(k: Tensor, v: Tensor) -> None:
    """Raises RuntimeError for keys and values whose history is recorded."""
    if k.requires_grad or v.requires_grad:
        raise RuntimeError(
            "a cache of keys and values carries no gradients; decode under minilm.no_grad(), train without a cache"
        )


def check_alike(buffer, new, rows: int) -> None:
    """Raises ValueError where new keys are of other rows, heads or width than those in the buffer."""
    if (rows, buffer.shape[1], buffer.shape[3]) != (new.shape[0], new.shape[1], new.shape[3]):
        raise ValueError(f"the cache holds keys and values like {buffer.shape}; got some like {new.shape}")
