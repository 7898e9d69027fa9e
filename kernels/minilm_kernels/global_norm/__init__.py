"""The length of all gradients taken as one vector."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["global_norm"]


def global_norm(arrays, *, implementation="auto") -> float:
    """The square root of the sum of the squares of all elements of all `arrays`, summed in float64.

    `arrays` is a list of arrays of one floating dtype and any shapes; the norm of none is 0. The same arrays give the
    same bits every time. NaN or infinity in an array gives NaN or infinity: no gradient goes wrong unseen. (Clipping
    by global norm: Pascanu et al. 2012, arXiv:1211.5063.)

    >>> global_norm([np.array([3.0]), np.array([[0.0, 4.0]])])
    5.0
    """
    if len(arrays) == 0:
        return 0.0
    checks.is_floating("arrays[0]", arrays[0])
    dtype = arrays[0].dtype
    for i, array in enumerate(arrays):
        if array.dtype != dtype:
            raise TypeError(f"arrays[{i}] is {array.dtype}; expected {dtype}, as arrays[0]: call it for each dtype")
    return registry.call("global_norm", implementation, arrays)
