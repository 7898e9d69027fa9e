"""Which library an array belongs to, and how it gets from one device to another."""

from __future__ import annotations

import sys

import numpy as np

__all__ = [
    "DTYPES",
    "array_module",
    "as_array",
    "bfloat16",
    "check_together",
    "cuda_problem",
    "default_device",
    "device_of",
    "has_cuda_array",
    "resolve_dtype",
    "synchronize",
    "to_device",
    "to_numpy",
]

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


def bfloat16() -> np.dtype:
    """The bfloat16 dtype, which NumPy gets from ml_dtypes (imported at the first use)."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def resolve_dtype(dtype) -> np.dtype:
    """The NumPy dtype meant by a name ("float32", "bfloat16", ...), a type or a dtype.

    >>> resolve_dtype("bfloat16").itemsize
    2
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16()
    if dtype is None:
        raise TypeError(f"None is no dtype; use one of {', '.join(DTYPES)}")
    try:
        return np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{dtype!r} is no dtype; use one of {', '.join(DTYPES)}") from None


def array_module(*arrays):
    """The module, `numpy` or `cupy`, whose functions fit `arrays` (anything that is not a CuPy array is NumPy's).

    >>> array_module(np.ones(2)).__name__
    'numpy'
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None and any(isinstance(array, cupy.ndarray) for array in arrays):
        return cupy
    return np


def has_cuda_array(arrays) -> bool:
    """Whether one of them is CuPy's (which costs nothing to ask where cupy was never imported)."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and any(isinstance(array, cupy.ndarray) for array in arrays)


def device_of(array) -> str:
    """`"cuda"` for a CuPy array, `"cpu"` for everything else.

    >>> device_of(np.ones(2))
    'cpu'
    """
    return "cpu" if array_module(array) is np else "cuda"


def check_together(name: str, arrays) -> None:
    """ValueError, naming `name` and the devices, unless all `arrays` (other values count for nothing) are on one."""
    if not has_cuda_array(arrays):
        return
    places = {device_of(a) for a in arrays if hasattr(a, "shape")}
    if len(places) > 1:
        raise ValueError(
            f"{name} got arrays on different devices, {' and '.join(sorted(places))}; "
            'move them together with .to("cuda") or .to("cpu")'
        )


def as_array(value, dtype=None, device: str | None = None):
    """`value` (array, number, nested list) as an array of `dtype` on `device`; no copy where none is needed.

    Python floats and lists of them become float32, the library's default; arrays keep their dtype, in the processor's
    order of bytes.

    >>> as_array([1.0, 2.0]).dtype, as_array(np.ones(2)).dtype, as_array([1, 2], "bfloat16").dtype
    (dtype('float32'), dtype('float64'), dtype(bfloat16))
    """
    array = value if array_module(value) is not np else np.asarray(value)
    if not array.dtype.isnative:  # from a file of another machine's, say: no kernel reads it
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype is not None:
        array = array.astype(resolve_dtype(dtype), copy=False)
    elif array.dtype == np.float64 and not hasattr(value, "dtype"):
        array = array.astype(np.float32)
    return array if device is None else to_device(array, device)


def to_device(array, device: str):
    """`array` on `device`: itself if it is there already, else a copy.

    Raises ValueError for an unknown device, RuntimeError (what is missing, how to get it) where there is no GPU.

    >>> x = np.ones(2)
    >>> to_device(x, "cpu") is x
    True
    """
    if device == "cpu":
        return to_numpy(array)
    if device != "cuda":
        raise ValueError(f"device is 'cpu' or 'cuda', not {device!r}")
    if device_of(array) == "cuda":
        return array
    problem = cuda_problem()
    if problem is not None:
        raise RuntimeError(f"device 'cuda' can't be used here: {problem}")
    import cupy

    return cupy.asarray(array)


def to_numpy(array) -> np.ndarray:
    """`array` as a NumPy array: itself if it is one, else a copy from the GPU.

    >>> to_numpy(as_array([1.0, 2.0])).dtype.name
    'float32'
    """
    return np.asarray(array) if array_module(array) is np else array.get()


def default_device() -> str:
    """`"cuda"` where a GPU can be used, else `"cpu"`."""
    return "cpu" if cuda_problem() is not None else "cuda"


def cuda_problem() -> str | None:
    """What is missing (package, driver or device) before CUDA can be used, and how to get it; None if nothing is."""
    try:
        import cupy
    except ImportError as error:
        if "libcuda.so" in str(error):
            return f"the NVIDIA driver is missing ({error}); install it, and check that nvidia-smi runs"
        return (
            f"the package CuPy is not installed or does not import ({error}); install it with pip install "
            "'minilm[cuda13]' (NVIDIA driver 580 or newer) or pip install 'minilm[cuda12]' (driver 525 or newer)"
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "NoDevice" in str(error):
            return "the NVIDIA driver finds no device; check nvidia-smi and CUDA_VISIBLE_DEVICES"
        return f"the NVIDIA driver is missing or older than CuPy needs ({error}); check that nvidia-smi runs"
    return None if count else "the NVIDIA driver finds no device; check nvidia-smi and CUDA_VISIBLE_DEVICES"


def synchronize(device: str) -> None:
    """Waits until the work queued on `device` is done (on the CPU nothing is queued)."""
    if device == "cuda":
        import cupy

        cupy.cuda.get_current_stream().synchronize()
