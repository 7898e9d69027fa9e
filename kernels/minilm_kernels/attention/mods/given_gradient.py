"""A derivative that the user gives, held against differences of the function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["check_gradient"]

_POINTS, _STEP, _TOLERANCE = 64, 1e-5, 1e-3


def check_gradient(function: Callable, gradient: Callable, shape: tuple[int, int, int, int]) -> None:
    """ValueError where `gradient` is not the derivative of `function` by its first argument, at random points."""
    if min(shape) == 0:
        return
    random = np.random.default_rng(0)
    for _ in range(_POINTS):
        score = np.float64(4 * random.standard_normal())  # not a float: with a float32 it would become one
        place = tuple(int(random.integers(size)) for size in shape)
        found = float(gradient(score, *place))
        above, here, below = (float(function(score + step, *place)) for step in (_STEP, 0.0, -_STEP))
        if not np.isfinite([above, here, below]).all():
            continue  # masked, or outside the function's domain
        left, right = (here - below) / _STEP, (above - here) / _STEP
        # Between the slopes on both sides: at a kink any of them will do.
        allowed = _TOLERANCE * max(1.0, abs(left), abs(right))
        if not min(left, right) - allowed <= found <= max(left, right) + allowed:
            raise ValueError(
                f"the gradient given for {getattr(function, '__name__', function)} is {found:.6g} at score "
                f"{score:.6g}, (b, h, q, k) = {place}; the function's slope there is {(left + right) / 2:.6g}, "
                f"{abs(found - (left + right) / 2):.3g} away"
            )
