"""GGUF files, the format of llama.cpp: metadata, and tensors that may be quantised in blocks.

The header is read here and not by the `gguf` package: a file that lies about its sizes is refused before anything of
them is allocated, and the fifty thousand texts of a vocabulary take a tenth of a second and not four.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["GGUFTensor", "read_gguf"]

_SCALARS = {
    0: "uint8", 1: "int8", 2: "uint16", 3: "int16", 4: "uint32", 5: "int32", 6: "float32", 7: "bool", 10: "uint64",
    11: "int64", 12: "float64",
}  # fmt: skip
_TEXT, _ARRAY = 8, 9
# ggml's numbers of the formats: (name, numbers in a block, bytes of a block).
_FORMATS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 30: ("BF16", 1, 2),
}  # fmt: skip
_PLAIN = {
    "F32": "float32", "F16": "float16", "F64": "float64", "BF16": "bfloat16", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64",
}  # fmt: skip
_MOST_AXES = 4


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of a file, not yet read: its format, its shape as a matrix (N, K), and a view of its bytes.

    `data` has that shape for a plain format, F32 or BF16, say; for blocks it is uint8 (N, bytes of a row).
    """

    format: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def is_plain(self) -> bool:
        """Whether the numbers stand there as they are, not in blocks."""
        return self.format in _PLAIN


def read_gguf(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """(metadata by key, tensors by name) of a GGUF file of version 2 or 3; tensors are views of the file.

    Numbers are Python's, arrays of numbers NumPy's, arrays of texts lists. FileNotFoundError where there is no file;
    ValueError, naming it and what is wrong, for one that is damaged, cut off, of another version or byte order.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no GGUF file {path}")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 24:
            raise ValueError(f"{path} is no GGUF file: it is shorter than a header")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _Header(memory).read()
    except _Damaged as error:
        raise ValueError(f"{path} is no intact GGUF file: {error}; fetch it anew") from None


class _Damaged(Exception):
    """What is wrong with the file."""


class _Header:
    """Reads along the file; every length is held against what is left of it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory, self.at = memory, 0

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        if self._bytes(4) != b"GGUF":
            raise _Damaged("it does not begin with GGUF")
        version = self._number("uint32")
        if version not in (2, 3):
            raise _Damaged(f"its version is {version}, and 2 and 3 are read (in little-endian order)")
        n_tensors, n_keys = self._number("uint64"), self._number("uint64")
        self._leaves_room("keys", n_keys, 13)
        metadata = {}
        for _ in range(n_keys):
            key = self._text()
            metadata[key] = self._value(self._number("uint32"))
        self._leaves_room("tensors", n_tensors, 24)
        entries = [self._entry() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
            raise _Damaged(f"its alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        return metadata, self._tensors(entries, start)

    def _tensors(self, entries: list, start: int) -> dict[str, GGUFTensor]:
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, format_number, offset in entries:
            if format_number not in _FORMATS:
                raise _Damaged(f"its tensor {name!r} has the format number {format_number}, which is not known")
            kind, block, size = _FORMATS[format_number]
            if not shape or shape[-1] % block:
                raise _Damaged(f"its tensor {name!r} of shape {shape} can't be cut into blocks of {block}")
            length = math.prod(shape) // block * size
            if offset < 0 or start + offset + length > len(self.memory):
                raise _Damaged(f"its tensor {name!r} ends after the file")
            if name in tensors:
                raise _Damaged(f"it has two tensors {name!r}")
            tensors[name] = GGUFTensor(kind, shape, self._view(kind, shape, block, size, start + offset, length))
        return tensors

    def _view(self, kind: str, shape: tuple, block: int, size: int, start: int, length: int) -> np.ndarray:
        import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16

        if kind in _PLAIN:
            dtype, rows = np.dtype(_PLAIN[kind]), shape
        else:
            dtype, rows = np.dtype(np.uint8), (*shape[:-1], shape[-1] // block * size)
        if not length:
            return np.empty(rows, dtype)
        return np.frombuffer(self.memory, dtype, length // dtype.itemsize, start).reshape(rows)

    def _entry(self) -> tuple:
        name, n_axes = self._text(), self._number("uint32")
        if n_axes > _MOST_AXES:
            raise _Damaged(f"its tensor {name!r} has {n_axes} axes")
        lengths = [self._number("uint64") for _ in range(n_axes)]  # the fastest first
        if math.prod(lengths) >= 2**48:
            raise _Damaged(f"its tensor {name!r} has the lengths {lengths}")
        return name, tuple(reversed(lengths)), self._number("uint32"), self._number("uint64")

    def _value(self, kind: int):
        if kind == _TEXT:
            return self._text()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY:
            raise _Damaged(f"a value has the type number {kind}, which is not known")
        kind, count = self._number("uint32"), self._number("uint64")
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind])
            return np.frombuffer(self._bytes(count * dtype.itemsize), dtype)
        if kind != _TEXT:
            raise _Damaged("an array holds other arrays")
        self._leaves_room("texts", count, 8)
        return [self._text() for _ in range(count)]

    def _text(self) -> str:
        length = self._number("uint64")
        return self._bytes(length).decode("utf-8", errors="replace")

    def _number(self, dtype: str):
        dtype = np.dtype(dtype)
        return struct.unpack(f"<{dtype.char if dtype != np.dtype('uint64') else 'Q'}", self._bytes(dtype.itemsize))[0]

    def _bytes(self, count: int) -> bytes:
        if count > len(self.memory) - self.at:
            raise _Damaged(f"it ends where {count} more bytes should come")
        self.at += count
        return self.memory[self.at - count : self.at]

    def _leaves_room(self, what: str, count: int, least: int) -> None:
        if count > (len(self.memory) - self.at) // least:
            raise _Damaged(f"it says that it has {count} {what}, for which it is too short")
