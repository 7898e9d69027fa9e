"""global_norm for CUDA: two launches for all arrays, and one number that comes to the host.

`norm_on_card` leaves it where it is, for those who clip without waiting.
"""

from __future__ import annotations

import numpy as np

from ..cuda.array_table import ArrayTable
from ..cuda.launching import DTYPES, contiguous, program
from ..registry import array_module, register

__all__ = ["norm_on_card"]


@register("global_norm", name="cuda", device="cuda", dtypes=DTYPES)
def global_norm(arrays):
    return float(norm_on_card(arrays))


def norm_on_card(arrays):
    """The norm of all arrays, of one dtype, as a float64 array without axes on their card."""
    xp = array_module(arrays[0])
    arrays = contiguous(xp, *arrays)
    table = ArrayTable.of(xp, arrays)
    sums, norm = xp.empty(table.chunks, np.float64), xp.empty((), np.float64)
    compiled = program(__file__, "global_norm.cu", arrays[0].dtype, PACKED=int(table.packed))
    compiled.kernel("sums_of_squares")(table.chunks, 256, (*table.arguments, sums))
    compiled.kernel("root_of_sum")(1, 256, (sums, norm, np.int32(table.chunks)))
    return norm
