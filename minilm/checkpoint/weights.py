"""Named arrays in a safetensors file, the field's format for weights: no code in it, and nothing is unpickled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minilm import backend

from .files import sync_file, sync_folder

__all__ = ["load_weights", "save_weights"]


def save_weights(path: str | os.PathLike, arrays: dict, metadata: dict[str, str] | None = None) -> None:
    """Writes `arrays` (name to NumPy or CuPy array) to `path`: aside first, then renamed, so that no half file is left.

    Any shape and layout; dtypes are kept (floating-point ones, bfloat16 too, integers, bool), others are a TypeError.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    ordered = {}
    for name, array in arrays.items():
        array = backend.to_numpy(array)
        if (array.dtype.kind not in "fiub" or array.itemsize > 8) and array.dtype.name != "bfloat16":
            raise TypeError(f"{name!r} is {array.dtype}, which a safetensors file does not hold; convert it first")
        # The library writes an array's memory as it lies, so it must lie in order (a scalar stays one: reshape).
        ordered[name] = np.ascontiguousarray(array).reshape(array.shape)
    try:
        aside.touch()
        mode = aside.stat().st_mode  # an ordinary file's; the library makes one that only its owner may read
        save_file(ordered, aside, metadata={"format": "pt", **(metadata or {})})
        os.chmod(aside, mode)
        sync_file(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def load_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name. Raises FileNotFoundError, or ValueError naming a damaged file."""
    import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}); fetch or write it anew") from None
