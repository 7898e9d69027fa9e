"""Named arrays in a safetensors file, the field's format for weights: no code in it, and nothing is unpickled."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minilm import backend
from minilm.files import naming, replacing

__all__ = ["load_weights", "map_weights", "save_weights"]

# What safetensors calls the dtypes, and what NumPy (with ml_dtypes) does.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5", "flax_model.msgpack")


def save_weights(path: str | os.PathLike, arrays: dict, metadata: dict[str, str] | None = None) -> None:
    """Writes `arrays` (name to NumPy or CuPy array) to `path`: aside first, then renamed, so that no half file is left.

    Any shape and layout; dtypes are kept (floating-point ones, bfloat16 too, integers, bool), others are a TypeError.
    A full disk is an OSError that names `path`, and what was there before is still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(Path(folder, "model.safetensors"), {"w": np.ones((2, 3), np.float16)})
    ...     load_weights(Path(folder, "model.safetensors"))["w"].dtype.name
    'float16'
    """

    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"save_weights takes a dict of arrays by name, not a {type(arrays).__name__}: model.state_dict()"
        )
    ordered = {}
    for name, array in arrays.items():
        array = backend.to_numpy(array)
        if (array.dtype.kind not in "fiub" or array.itemsize > 8) and array.dtype.name != "bfloat16":
            raise TypeError(f"{name!r} is {array.dtype}, which a safetensors file does not hold; convert it first")
        # The library writes an array's memory as it lies, so it must lie in order (a scalar stays one: reshape).
        ordered[name] = np.ascontiguousarray(array).reshape(array.shape)
    with naming(path), replacing(path) as aside:
        aside.touch()
        mode = aside.stat().st_mode  # an ordinary file's; the library makes one that only its owner may read
        _save_file(ordered, aside, {"format": "pt", **(metadata or {})})
        os.chmod(aside, mode)


def _save_file(arrays: dict, path: Path, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata=metadata)
    except SafetensorError as error:  # the system's, by its number in the text
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, or of a model's folder, by name; raises what `map_weights` does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(Path(folder, "model.safetensors"), {"w": np.ones((2, 3), np.float32)})
    ...     load_weights(folder)["w"].sum()
    np.float32(6.0)
    """
    return {name: array.copy() for name, array in map_weights(path).items()}


def map_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, or of a model's folder, by name: read-only views of the file, none of it read.

    A folder holds model.safetensors, or several files and model.safetensors.index.json, which says where each name is.
    The dtype is the file's; float16 and bfloat16 become whatever they are copied into. FileNotFoundError where there
    are no weights, also where they come in a format that executes code when it is read; ValueError for a damaged file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(Path(folder, "model.safetensors"), {"w": np.ones((2, 3), np.float32)})
    ...     w = map_weights(folder)["w"]
    >>> w.shape, w.flags.writeable
    ((2, 3), False)
    """
    path = Path(path)
    if not path.is_dir():
        return _map_file(path)
    if (path / "model.safetensors").is_file():
        return _map_file(path / "model.safetensors")
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        pickled = next((name for name in _PICKLED if (path / name).exists()), None)
        if pickled is not None:
            raise FileNotFoundError(
                f"{path} holds its weights as {pickled}, which is not read here: a pickle can run any code. Convert it "
                "where you trust it, with transformers: "
                "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)"
            )
        raise FileNotFoundError(f"{path} holds no model.safetensors and no model.safetensors.index.json")
    return _map_shards(index)


def _map_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_once)["weight_map"]
        shards = sorted(set(places.values()))
    except _Twice as error:
        raise ValueError(f"{index} says twice where {error.args[0]!r} is; fetch it anew") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index} is no index of weights: JSON with an object 'weight_map' of name to file") from None
    arrays: dict[str, np.ndarray] = {}
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", "..") or not shard.isprintable():
            raise ValueError(f"{index} names the file {shard!r}; expected one beside it")
        if not (index.parent / shard[:255]).is_file():
            raise FileNotFoundError(f"{index} names the file {shard[:255]}, which is not there; fetch all of them")
        found = _map_file(index.parent / shard)
        lost = [name for name, place in places.items() if place == shard and name not in found]
        if lost:
            raise ValueError(f"{index} says that {lost[0]!r} is in {shard}, and it is not")
        arrays.update({name: array for name, array in found.items() if places.get(name) == shard})
    return arrays


class _Twice(Exception):
    """A key that an object has twice, of which JSON would take the last."""


def _once(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _map_file(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        with safe_open(path, framework="numpy"):  # checks the header: sizes, offsets, overlaps
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}); fetch or write it anew") from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path} holds {name!r} as {entry['dtype']}; this version reads {', '.join(_DTYPES)}")
        dtype, count = np.dtype(_DTYPES[entry["dtype"]]), math.prod(entry["shape"])
        start = 8 + length + entry["data_offsets"][0]
        flat = np.frombuffer(memory, dtype, count, start) if count else np.empty(0, dtype)
        try:
            arrays[name] = flat.reshape(entry["shape"])
        except ValueError as error:  # too many axes, or one of no numbers and too long
            raise ValueError(f"{path} holds {name!r} of shape {str(entry['shape'])[:80]}: {error}") from None
    return arrays
