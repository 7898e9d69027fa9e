"""A gradient that is zero except at one place, written down without the zeros."""

from __future__ import annotations

from minilm import backend

__all__ = ["Placed"]


class Placed:
    """`values` at `index` of an array of zeros of `shape`; values for the same element add up.

    The gradient of indexing, of an embedding, of a part of a split. The engine adds it into the gradient that is
    already there, so that a tied embedding's gradient, or those of the three slices of a q/k/v projection, cost no
    array of zeros each. `add(target, index, values)` is the way to add, when not by plain `target[index] += values`.

    >>> import numpy as np
    >>> Placed(np.array([1.0, 2.0]), slice(1, 3), (4,)).dense().tolist()
    [0.0, 1.0, 2.0, 0.0]
    """

    __slots__ = ("add", "index", "shape", "values")

    def __init__(self, values, index, shape: tuple[int, ...], add=None) -> None:
        self.values = values
        self.index = index
        self.shape = shape
        self.add = add

    @property
    def dtype(self):
        """The dtype of the values."""
        return self.values.dtype

    def astype(self, dtype) -> Placed:
        """The same with values of another dtype."""
        return Placed(self.values.astype(dtype), self.index, self.shape, self.add)

    def add_to(self, target) -> None:
        """Adds the values to `target` in place."""
        if self.add is not None:
            self.add(target, self.index, self.values)
        else:
            target[self.index] += self.values

    def dense(self):
        """The whole array, zeros included."""
        whole = backend.array_module(self.values).zeros(self.shape, self.values.dtype)
        self.add_to(whole)
        return whole
