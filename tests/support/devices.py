"""Arrays of a test's table where the test runs."""

from __future__ import annotations

from minilm import backend

__all__ = ["beside"]


def beside(x, array):
    """`array`, a NumPy array, on the device of `x`, an array or a Tensor."""
    return backend.to_device(array, backend.device_of(getattr(x, "_data", x)))
