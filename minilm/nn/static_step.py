"""A static cache as a recorded step of decoding sees it: where the next token goes is known to the device only."""

from __future__ import annotations

from minilm import backend
from minilm.autograd import Tensor

from .cache import KeyValueCache, check_alike, refuse_gradients
from .static_cache import StaticCache

__all__ = ["StaticStep"]


class StaticStep(KeyValueCache):
    """What a model gets as its cache for one more token in each row of a StaticCache, whose buffers must be there.

    `lengths` (rows,) int64, on the device, are what the rows hold. The new keys and values are written behind that, and
    attention gets all of the room, with `key_lengths`: no shape depends on a number that the host knows, as a recorded
    graph needs it. Nothing is counted here; `cache.count(1)` does that, on the host.

    >>> import numpy as np
    >>> cache, x = StaticCache(n_layer=1, rows=2, capacity=4), Tensor(np.ones((2, 1, 1, 3)))
    >>> k, v = cache.append(0, x, x)
    >>> k, v, seen = StaticStep(cache, np.array([1, 1])).attend(0, x, x, {"causal": True})
    >>> k.shape, seen
    ((2, 1, 4, 3), {'key_lengths': array([2, 2])})
    """

    def __init__(self, cache: StaticCache, lengths) -> None:
        super().__init__(len(cache.buffers) // 2, cache.capacity)
        layers = len(self._keys)
        self._keys, self._values = list(cache.buffers[:layers]), list(cache.buffers[layers:])
        self._starts, self._stops = lengths, lengths + 1

    def __len__(self) -> int:
        """The most tokens that a row can hold for there to be room for another."""
        return self.capacity - 1

    def attend(self, layer: int, k: Tensor, v: Tensor, seen: dict) -> tuple[Tensor, Tensor, dict]:
        """As StaticCache's, of keys and values (rows, Hk, 1, D); raises ValueError for more tokens than one."""
        refuse_gradients(k, v)
        rows, heads, count, width = k.shape
        if count != 1:
            raise ValueError(f"a recorded step has one token a row; got {count}")
        xp, found = backend.array_module(k.data), []
        # One index for each row of a buffer seen as a matrix: a plain kernel writes all heads.
        places = (xp.arange(rows * heads).reshape(rows, heads) * self.capacity + self._starts[:, None]).reshape(-1)
        for buffer, new in ((self._keys[layer], k.data), (self._values[layer], v.data)):
            check_alike(buffer, new, len(buffer))
            buffer.reshape(-1, width)[places] = new.reshape(-1, width)
            found.append(Tensor(buffer))
        window = seen.get("window")
        seen = {name: value for name, value in seen.items() if name not in ("causal", "window")}
        if window is None or window >= self.capacity:
            return *found, {**seen, "key_lengths": self._stops}
        key, stop = xp.arange(self.capacity), self._stops[:, None]
        mask = (key < stop) & (key >= stop - window)
        return *found, {**seen, "attn_mask": mask[:, None, None]}
