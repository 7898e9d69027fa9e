"""Token files: a header of 128 bytes, then the ids as little-endian uint16 or uint32.

| bytes   | what                                                                    |
| ------- | ----------------------------------------------------------------------- |
| 0-7     | magic, `minilmtk`                                                       |
| 8-11    | format version, uint32: 1                                               |
| 12-15   | bytes an id: 2 where the vocabulary has at most 65,536 tokens, else 4   |
| 16-23   | number of ids, uint64                                                   |
| 24-31   | size of the vocabulary, uint64                                          |
| 32-39   | id of the end-of-text token, int64, -1 if there is none                 |
| 40-71   | SHA-256 digest of the tokenizer that made the ids                       |
| 72-75   | CRC-32 of the ids' bytes                                                |
| 76-123  | zeros                                                                   |
| 124-127 | CRC-32 of bytes 0-123                                                   |
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from minilm.data.errors import DataError
from minilm.files import replacing

__all__ = ["TokenFile", "TokenFileWriter"]

_MAGIC = b"minilmtk"
_VERSION = 1
_FIELDS = struct.Struct("<8sIIQQq32sI48x")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_VERIFY_BYTES = 1 << 24


class TokenFile:
    """A file of token ids, memory-mapped read-only: it may be larger than memory.

    `tokens` is the array of ids, shape (n,), uint16 or uint32; `vocab_size`, `eos_token_id`, `tokenizer_digest` and
    `checksum` are the header's. The header and the file's length are checked always; `verify=False` leaves out reading
    all ids once to compare their checksum (1 to 2 seconds a gigabyte).

    Raises FileNotFoundError, and DataError where the file is not one of these, was cut short or damaged.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "some.tokens")
    >>> with TokenFileWriter(path, vocab_size=300, tokenizer_digest="00" * 32) as writer:
    ...     writer.write([1, 2, 299])
    >>> TokenFile(path).tokens.tolist()
    [1, 2, 299]
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike, *, verify: bool = True):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no token file at {self.path}")
        with open(self.path, "rb") as file:
            header = file.read(_HEADER_BYTES)
        if header[:8] != _MAGIC:
            raise DataError(
                f"{self.path} is not a token file of minilm: it starts with {header[:8]!r} and should with {_MAGIC!r}"
            )
        fields, checksum = header[: _FIELDS.size], header[_FIELDS.size :]
        if len(header) < _HEADER_BYTES or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(fields):
            raise self._damaged("its header does not match the header's checksum")
        _, version, itemsize, count, self.vocab_size, eos, digest, self.checksum = _FIELDS.unpack(fields)
        if version != _VERSION or itemsize not in (2, 4):
            raise DataError(
                f"{self.path} has token file format {version} with {itemsize} bytes an id; this minilm reads format "
                f"{_VERSION} with 2 or 4: prepare the corpus again"
            )
        self.eos_token_id = None if eos < 0 else eos
        self.tokenizer_digest = digest.hex()
        expected, size = _HEADER_BYTES + count * itemsize, self.path.stat().st_size
        if size != expected:
            raise self._damaged(f"its header promises {count:,} ids, so {expected:,} bytes, and it has {size:,}")
        mapped = np.memmap(self.path, dtype=f"<u{itemsize}", mode="r", offset=_HEADER_BYTES, shape=(count,))
        self.tokens = mapped.view(np.ndarray)
        if verify:
            self.verify()

    def verify(self) -> None:
        """Reads all ids once; DataError if they are not those that were written."""
        checksum, step = 0, _VERIFY_BYTES // self.tokens.itemsize
        for start in range(0, len(self.tokens), step):
            checksum = zlib.crc32(self.tokens[start : start + step], checksum)
        if checksum != self.checksum:
            raise self._damaged("its ids do not match their checksum")

    def check_tokenizer(self, digest: str) -> None:
        """DataError unless `digest` is that of the tokenizer which made this file."""
        if digest != self.tokenizer_digest:
            raise DataError(
                f"{self.path} was made with tokenizer {self.tokenizer_digest[:12]}, and this one is {digest[:12]}: "
                "its ids mean other text; use the tokenizer.json beside the file, or prepare the corpus again"
            )

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path} is damaged: {why}; prepare the corpus again")

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r}, {len(self):,} {self.tokens.dtype.name} tokens of {self.vocab_size:,})"


class TokenFileWriter:
    """Writes a token file piece by piece; it appears under its name, whole, when the `with` block ends without error.

    `tokenizer_digest` is 64 hexadecimal digits (`Tokenizer.digest`). An id outside the vocabulary is a ValueError, and
    a file without any id a DataError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.tokens")
    ...     with TokenFileWriter(path, vocab_size=100, tokenizer_digest="0" * 64) as file:
    ...         file.write([3, 1, 4])
    ...         file.write(np.array([1, 5]))
    ...     TokenFile(path).tokens
    array([3, 1, 4, 1, 5], dtype=uint16)
    """

    def __init__(
        self, path: str | os.PathLike, *, vocab_size: int, tokenizer_digest: str, eos_token_id: int | None = None
    ):
        self.path = Path(path)
        self.vocab_size = vocab_size
        self.eos_token_id = eos_token_id
        self.count = self.checksum = 0
        self._digest = bytes.fromhex(tokenizer_digest)
        if len(self._digest) != 32:
            raise ValueError(f"the tokenizer's digest is 64 hexadecimal digits, not {len(tokenizer_digest)}")
        if not 1 <= vocab_size <= 1 << 32:
            raise ValueError(f"vocab_size is {vocab_size}; a token file holds ids of 1 to 2**32 tokens")
        self._dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._stack = ExitStack()

    def __enter__(self) -> TokenFileWriter:
        aside = self._stack.enter_context(replacing(self.path))
        self._file = self._stack.enter_context(open(aside, "wb"))
        self._file.write(bytes(_HEADER_BYTES))
        return self

    def write(self, ids) -> None:
        """Appends ids, any integer array or sequence."""
        ids = np.asarray(ids)
        if ids.size == 0:
            return
        if ids.dtype.kind not in "iu":
            raise ValueError(f"token ids are integers, not {ids.dtype}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"id {low if low < 0 else high} is outside the vocabulary of {self.vocab_size} tokens")
        data = np.ascontiguousarray(ids.reshape(-1), dtype=self._dtype)
        self._file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)
        self.count += data.size

    def __exit__(self, kind, error, traceback) -> bool | None:
        if kind is not None:
            return self._stack.__exit__(kind, error, traceback)
        with self._stack:
            if self.count == 0:
                raise DataError(f"no token was written to {self.path}: the text is empty or too short")
            eos = -1 if self.eos_token_id is None else self.eos_token_id
            fields = (
                _MAGIC,
                _VERSION,
                self._dtype.itemsize,
                self.count,
                self.vocab_size,
                eos,
                self._digest,
                self.checksum,
            )
            header = _FIELDS.pack(*fields)
            self._file.seek(0)
            self._file.write(header + _CHECKSUM.pack(zlib.crc32(header)))
        return None
