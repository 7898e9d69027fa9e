"""The gradient of looking rows up in a table."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["embedding_backward"]


def embedding_backward(g, indices, out, *, implementation="auto"):
    """Adds each row of `g` to the row of `out` that it was looked up from: out[indices[i]] += g[i], in place.

    An index may come more than once; its rows are added in the order in which they come, so that the result has the
    same bits every time. The forward pass is `weight[indices]`.

    `g` (N, C) and `out` (V, C) of one floating dtype, `indices` (N,) integers in [0, V). Returns `out`. IndexError for
    an index out of range, and nothing has been added then.

    >>> embedding_backward(np.ones((3, 2)), np.array([1, 0, 1]), np.zeros((2, 2)))
    array([[1., 1.],
           [2., 2.]])
    """
    checks.is_floating("g", g)
    if g.ndim != 2 or out.ndim != 2:
        raise ValueError(f"g and out have shapes {g.shape} and {out.shape}; expected (N, C) and (V, C): reshape them")
    checks.matches("out", out, (len(out), g.shape[1]), g.dtype)
    checks.is_integer("indices", indices, g.shape[:1])
    return registry.call("embedding_backward", implementation, g, indices, out)


def out_of_range(position: int, index: int, rows: int) -> IndexError:
    """The error that an implementation raises for an index that names no row."""
    return IndexError(f"indices[{position}] is {index}; expected a row in [0, {rows}), as out has {rows} rows")
