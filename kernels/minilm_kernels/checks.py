"""What every public function asks of its arrays, with errors that say what was expected, what came and what to do."""

from __future__ import annotations

import numpy as np

__all__ = [
    "are_alike", "common_dtype", "has_columns", "is_floating", "is_half", "is_integer", "is_sequence", "is_step",
    "last_axis_only", "matches", "matches_or_narrower", "narrower", "normal_axis", "seed", "wide",
]  # fmt: skip


def is_floating(name: str, array) -> None:
    """TypeError unless `array` is an array of floating-point numbers."""
    if _dtype(name, array).kind not in "fV":  # V: bfloat16 and its kin
        raise TypeError(f"{name} is {array.dtype}; expected floating-point numbers: use {name}.astype('float32')")


def has_columns(name: str, array) -> None:
    """TypeError or ValueError unless `array` holds floating-point numbers in rows of one or more."""
    is_floating(name, array)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected (..., C) with C of 1 or more")


def normal_axis(axis: int, x) -> int:
    """The axis of `x` that is meant, not negative; ValueError if it has none such."""
    if not hasattr(axis, "__index__"):
        raise TypeError(f"axis is {axis!r}; expected an integer: one axis")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}; an array of shape {x.shape} has axes {-x.ndim} to {x.ndim - 1}")
    return axis % x.ndim


def last_axis_only(*arrays, axis: int, mask=None) -> str | None:
    """Limits of a kernel that works along the rows of an array."""
    last = arrays[0].ndim - 1
    return None if axis == last else f"it works along the last axis, {last}, not {axis}: use numpy.moveaxis"


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


def matches_or_narrower(name: str, array, shape: tuple[int, ...], dtype) -> None:
    """As `matches`, but beside float32 an array may also have 16 bits."""
    given = _dtype(name, array)
    matches(name, array, shape, given if dtype == np.float32 and is_half(given) else dtype)


def narrower(dtype, x) -> dict:
    """The setting `dtype` of a result like x for implementations: none, or {"dtype": one of 16 bits} beside float32.

    ValueError for any other dtype than these and x's own.
    """
    if dtype is None or np.dtype(dtype) == x.dtype:
        return {}
    if x.dtype != np.float32 or not is_half(np.dtype(dtype)):
        raise ValueError(f"dtype is {dtype}; expected x's own, {x.dtype}, or for a float32 x float16 or bfloat16")
    return {"dtype": np.dtype(dtype)}


def is_half(dtype) -> bool:
    """Whether this is float16 or bfloat16."""
    return dtype.itemsize == 2 and dtype.kind in "fV"  # of these there are float16 and bfloat16


def common_dtype(*arrays) -> np.dtype:
    """The dtype that holds the numbers of all; integers beside floats are taken for the floats', and widen nothing."""
    floats = [x.dtype for x in arrays if x.dtype.kind not in "iub"]
    return np.result_type(*(floats or [x.dtype for x in arrays]))


def wide(array):
    """The dtype of what is summed up of an array: its own, or float32 where it has 16 bits."""
    return np.dtype(np.float32) if array.itemsize == 2 else array.dtype


def is_sequence(sums, weight, alive, *, gates: int) -> None:
    """TypeError or ValueError unless these are a recurrent layer's: (T, B, gates C), (gates C, C), booleans or None."""
    is_floating("sums", sums)
    C = weight.shape[-1]
    if sums.ndim != 3 or weight.shape != (gates * C, C) or sums.shape[2] != gates * C:
        raise ValueError(f"sums {sums.shape} and weight {weight.shape}; expected (T, B, {gates} C) and ({gates} C, C)")
    if alive is not None and (alive.shape != sums.shape[:2] or alive.dtype != bool):
        raise ValueError(f"alive is {alive.dtype} {alive.shape}; expected booleans {sums.shape[:2]}")


def is_step(step: int, betas: tuple[float, float]) -> None:
    """ValueError unless an optimiser's steps are counted from 1 and its two means forget."""
    if step < 1:
        raise ValueError(f"step is {step}; steps are counted from 1")
    if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
        raise ValueError(f"betas are {betas}; expected two numbers in [0, 1)")


def are_alike(lists: dict[str, list], *, read_only: tuple[str, ...] = ()) -> None:
    """ValueError or TypeError unless the lists have one length, and their arrays at each place one shape.

    All arrays must have one dtype and be contiguous, and writeable but for those of the lists in `read_only`.
    """
    if len({len(arrays) for arrays in lists.values()}) > 1:
        lengths = ", ".join(f"{name} {len(arrays)}" for name, arrays in lists.items())
        raise ValueError(f"expected lists of one length, one array for each parameter; got {lengths}")
    first, leaders = next(iter(lists.items()))
    if len(leaders) == 0:
        return
    is_floating(f"{first}[0]", leaders[0])
    dtype = leaders[0].dtype
    for i, leader in enumerate(leaders):
        shape = leader.shape
        for name, arrays in lists.items():
            array = arrays[i]
            if array.shape != shape or array.dtype != dtype:
                matches(f"{name}[{i}]", array, shape, dtype)
            flags = array.flags
            if not flags.c_contiguous:
                raise ValueError(f"{name}[{i}] is not C-contiguous, and is not copied: make it contiguous")
            if name not in read_only and not getattr(flags, "writeable", True):  # CuPy has no read-only arrays
                raise ValueError(f"{name}[{i}] is read-only, and is to be updated in place: copy it first")


def seed(name: str, value):
    """The seed as an int or, if it is one on the device, as that CuPy array: kernels read it when they run.

    ValueError for a number outside [0, 2^64), TypeError for a CuPy array that is not uint64 without axes.
    """
    if hasattr(type(value), "__cuda_array_interface__"):
        if value.shape != () or value.dtype != "uint64":
            raise TypeError(f"{name} is an array of {value.dtype} {value.shape}; expected one uint64, without axes")
        return value
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} is {value}; expected an integer in [0, 2**64)")
    return int(value)


def _dtype(name: str, array):
    try:
        array.dtype.kind  # noqa: B018 - a torch tensor has a dtype too, but not of this kind
    except AttributeError:
        raise TypeError(
            f"{name} is a {type(array).__name__}; expected a NumPy or CuPy array: convert it with numpy.asarray"
        ) from None
    return array.dtype
