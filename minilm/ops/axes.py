"""Axes as an argument names them, as numbers from 0; AxisError (an IndexError and a ValueError) where there is none."""

from __future__ import annotations

from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

__all__ = ["axes_of", "axis_of"]


def axis_of(axis: int, ndim: int) -> int:
    """The axis meant, not negative."""
    return normalize_axis_index(axis, ndim)


def axes_of(axis, ndim: int) -> tuple[int, ...]:
    """The axes meant by a number, several, or None for all; none negative, none twice."""
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
