"""Arrays that a modifier reads: which kinds it may, and an element as a node of the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node

__all__ = ["Elements", "checked_array"]

_DTYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64"}


def checked_array(array: np.ndarray, name: str) -> np.ndarray:
    """`array`; TypeError or ValueError if a modifier can't read it in place."""
    if array.dtype.name not in _DTYPES or not array.dtype.isnative:
        raise TypeError(
            f"{name} is an array of {array.dtype}; expected one of {', '.join(sorted(_DTYPES))}: "
            "use .astype('float32') or .astype('int64')"
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name} is an array with gaps in memory; use numpy.ascontiguousarray")
    if array.size == 0:
        raise ValueError(f"{name} is an array of shape {array.shape}, with no elements to read")
    return array


@dataclass(frozen=True)
class Elements:
    """An array, or what is left of it when its first dimensions are indexed."""

    array: np.ndarray
    indices: tuple[Node, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape[len(self.indices) :]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def at(self, graph: Graph, indices: list[Node], where: str) -> Elements | Node:
        for index in indices:
            if index.type not in ("int32", "int64"):
                raise TypeError(f"{where} is indexed with a {index.type}; expected integers")
        found = Elements(self.array, (*self.indices, *indices))
        if len(found.indices) > self.array.ndim:
            raise ValueError(f"{where} has {len(found.indices)} indices, and the array has shape {self.array.shape}")
        return found if found.ndim else graph.load(self.array, found.indices)

    def load(self, graph: Graph, where: str) -> Node:
        if self.ndim:
            raise ValueError(
                f"{where}: an array of shape {self.shape} is computed with as a whole; expected an element of it: "
                "index it with b, h, q, k or integers computed from them"
            )
        return graph.load(self.array, self.indices)
