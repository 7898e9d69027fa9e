"""What every public function asks of its arrays, with errors that say what was expected, what came and what to do."""

from __future__ import annotations

__all__ = ["has_columns", "is_floating", "is_integer", "matches"]


def is_floating(name: str, array) -> None:
    """TypeError unless `array` is an array of floating-point numbers."""
    if _dtype(name, array).kind not in "fV":  # V: bfloat16 and its kin
        raise TypeError(f"{name} is {array.dtype}; expected floating-point numbers: use {name}.astype('float32')")


def has_columns(name: str, array) -> None:
    """TypeError or ValueError unless `array` holds floating-point numbers in rows of one or more."""
    is_floating(name, array)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected (..., C) with C of 1 or more")


def is_integer(name: str, array, shape: tuple[int, ...]) -> None:
    """TypeError or ValueError unless `array` holds integers and has this shape."""
    if _dtype(name, array).kind not in "iu":
        raise TypeError(f"{name} is {array.dtype}; expected integers: use {name}.astype('int64')")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")


def matches(name: str, array, shape: tuple[int, ...], dtype) -> None:
    """ValueError or TypeError unless `array` has this shape and dtype."""
    if _dtype(name, array) != dtype:
        raise TypeError(f"{name} is {array.dtype}; expected {dtype} like the others: use {name}.astype('{dtype}')")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")


def _dtype(name: str, array):
    try:
        array.dtype.kind  # noqa: B018 - a torch tensor has a dtype too, but not of this kind
    except AttributeError:
        raise TypeError(
            f"{name} is a {type(array).__name__}; expected a NumPy or CuPy array: convert it with numpy.asarray"
        ) from None
    return array.dtype
