"""A row of x times rows of a float32 matrix: as fast as the matrix can be read."""

from __future__ import annotations

from ..jit import jit
from ..simd import LANES, add, fma, load, prefetch, sum_lanes, zeros

__all__ = ["rows_of_floats"]

AHEAD = 4096  # elements before their use, in memory's order, that a row's next ones are asked for


@jit
def rows_of_floats(w, K, x, y, first, start, stop):
    """y[first + n] = the sum over k of x[k] w[n K + k], for n from `start` to `stop`, four at a time; K % 8 == 0."""
    last = stop - 1
    for n in range(start, stop, 4):
        a, b, c, d = n * K, min(n + 1, last) * K, min(n + 2, last) * K, min(n + 3, last) * K
        y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = zeros()
        for k in range(0, K - LANES, 2 * LANES):
            u, v = load(x, k), load(x, k + LANES)
            prefetch(w, a + k + AHEAD), prefetch(w, b + k + AHEAD)
            prefetch(w, c + k + AHEAD), prefetch(w, d + k + AHEAD)
            y0, z0 = fma(load(w, a + k), u, y0), fma(load(w, a + k + LANES), v, z0)
            y1, z1 = fma(load(w, b + k), u, y1), fma(load(w, b + k + LANES), v, z1)
            y2, z2 = fma(load(w, c + k), u, y2), fma(load(w, c + k + LANES), v, z2)
            y3, z3 = fma(load(w, d + k), u, y3), fma(load(w, d + k + LANES), v, z3)
        if K % (2 * LANES) != 0:
            k = K - LANES
            u = load(x, k)
            y0, y1 = fma(load(w, a + k), u, y0), fma(load(w, b + k), u, y1)
            y2, y3 = fma(load(w, c + k), u, y2), fma(load(w, d + k), u, y3)
        y[first + n], y[first + min(n + 1, last)] = sum_lanes(add(y0, z0)), sum_lanes(add(y1, z1))
        y[first + min(n + 2, last)], y[first + min(n + 3, last)] = sum_lanes(add(y2, z2)), sum_lanes(add(y3, z3))
