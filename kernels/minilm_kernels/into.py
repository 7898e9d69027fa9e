"""Results written to arrays that the caller has: what `into=` of an operation means."""

from __future__ import annotations

from . import checks

__all__ = ["check_into", "placed"]


def check_into(into: tuple | None, shapes: tuple, dtype) -> None:
    """ValueError or TypeError unless `into` is None, or C-contiguous arrays of these shapes and this dtype."""
    if into is None:
        return
    if len(into) != len(shapes):
        raise ValueError(f"into has {len(into)} arrays; expected {len(shapes)}, one for each result")
    for i, (array, shape) in enumerate(zip(into, shapes)):
        if array.shape != shape or array.dtype != dtype:
            checks.matches(f"into[{i}]", array, shape, dtype)
        if not array.flags.c_contiguous:
            raise ValueError(f"into[{i}] is not C-contiguous, and is written to as it is: make it contiguous")


def placed(results: tuple, into: tuple | None) -> tuple:
    """The results, the first of them written to the arrays of `into` if there are any.

    >>> import numpy as np
    >>> mine = np.zeros(2)
    >>> placed((np.ones(2), np.ones(3)), (mine,))[1], mine
    (array([1., 1., 1.]), array([1., 1.]))
    """
    into = into or ()
    for array, result in zip(into, results):
        array[...] = result
    return (*into, *results[len(into) :])
