"""A corpus: which files, in which order, and that each of them is text."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minilm.data.errors import DataError

__all__ = ["CHUNK_CHARACTERS", "Corpus", "Document", "stdlib_corpus"]

CHUNK_CHARACTERS = 1 << 16
_BLOCK_BYTES = 1 << 20
# As far as here the text tokenizes alike whether or not what follows is there: pre-tokenizers (GPT-2's, Llama 3's,
# any that keeps words whole) always end a piece where a letter or digit is followed by white space.
_SEAM = re.compile(r".*[^\W_](?=[ \t\r\n])", re.DOTALL)

# What of the standard library is no ordinary source: other people's packages, tests, generated tables, and whole
# applications and fix-up tools that are absent from some installations.
_STDLIB_EXCLUDED = (
    *("site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"),
    *("idlelib", "lib2to3", "turtledemo", "ensurepip", "lib-dynload"),
)
_STDLIB_LEAST_BYTES = 1_000_000


@dataclass(frozen=True)
class Document:
    """One text file, known to be UTF-8 and `characters` long (a byte order mark is not part of the text).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "text.txt").write_text("to be or not to be")
    ...     list(Corpus(folder).documents[0].chunks(size=4))
    ['to', ' be', ' or', ' not to', ' be']
    """

    path: Path
    name: str
    characters: int

    def chunks(self, start: int = 0, stop: int | None = None, size: int = CHUNK_CHARACTERS) -> Iterator[str]:
        """The characters from `start` to `stop` in pieces of at most 2*size characters, line ends untouched.

        A piece ends after a word where there is one, so that tokenizing piece by piece gives what tokenizing the whole
        would give.
        """
        remaining = (self.characters if stop is None else stop) - start
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            while start > 0:
                start -= len(self._read(file, min(size, start)))
            held = ""
            while remaining > 0:
                piece = self._read(file, min(size, remaining))
                remaining -= len(piece)
                held += piece
                seam = _SEAM.match(held) if remaining > 0 else None
                cut = seam.end() if seam else len(held)
                yield held[:cut]
                held = held[cut:]

    def _read(self, file, count: int) -> str:
        text = file.read(count)
        if not text:
            raise DataError(f"{self.path} became shorter while it was read; start again once nothing writes to it")
        return text


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    size: int
    mtime_ns: int
    named: bool  # given by the user, not found in a folder: then being no text is an error


class Corpus:
    """The text of a UTF-8 file, of several, or of all in a folder and the folders in it.

    Files come in the order given, a folder's sorted by path. In a folder, hidden files and folders, `__pycache__` and
    folders named in `exclude` are passed over, and so is what does not end in one of `suffixes` (None: everything);
    a file that is empty or no UTF-8 text is skipped and listed in `skipped`. A file that was named must be text.

    Making a Corpus only lists files; `documents` reads them all once, to check them and count their characters.

    Raises FileNotFoundError for a path that is not there, DataError for what can't be a corpus, and says why.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = Path(folder.name, "a.txt").write_text("to be")
    >>> corpus = Corpus(folder.name)
    >>> corpus.documents[0].name, corpus.characters, list(corpus.texts())
    ('a.txt', 5, ['to be'])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        paths: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        suffixes: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        description: str | None = None,
    ):
        paths = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
        if not paths:
            raise DataError("a corpus needs at least one file or folder, and none was given")
        self.description = description or ", ".join(str(path) for path in paths)
        self._files: list[_File] = []
        for path in paths:
            self._add(path, None if suffixes is None else tuple(suffixes), {"__pycache__", *exclude})

    def _add(self, path: Path, suffixes: tuple[str, ...] | None, exclude: set[str]) -> None:
        if path.is_dir():
            found = [_stat(file, file.relative_to(path).as_posix(), False) for file in _walk(path, suffixes, exclude)]
            if not found:
                wanted = "" if suffixes is None else f" ending in {' or '.join(suffixes)}"
                raise DataError(f"the folder {path} holds no file{wanted}; give a folder of UTF-8 text files")
        elif path.is_file():
            found = [_stat(path, path.name, True)]
        else:
            raise FileNotFoundError(f"no file or folder {path}: a corpus is a UTF-8 text file or a folder of them")
        known = {file.path for file in self._files}
        twice = next((file.path for file in found if file.path in known), None)
        if twice is not None:
            raise DataError(f"{twice} is in the corpus twice; give each file once")
        self._files += found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the files' paths, sizes and modification times: it changes when the corpus does."""
        listing = "\n".join(f"{file.path}\0{file.size}\0{file.mtime_ns}" for file in self._files)
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def documents(self) -> tuple[Document, ...]:
        """The documents, each read through once; DataError if a named file is no text or there is none at all."""
        return self._scan[0]

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each file of a folder that is no document."""
        return self._scan[1]

    @cached_property
    def _scan(self) -> tuple[tuple[Document, ...], tuple[tuple[str, str], ...]]:
        documents, skipped = [], []
        for file in self._files:
            characters, problem = _count_characters(file.path, binary_is_text=file.named)
            if problem is None:
                documents.append(Document(file.path, file.name, characters))
            elif file.named:
                raise DataError(f"{file.path} {problem}")
            else:
                skipped.append((file.name, problem))
        if not documents:
            name, problem = skipped[0]
            raise DataError(
                f"none of the {len(skipped)} files of {self.description} is text; the first, {name}, {problem}"
            )
        return tuple(documents), tuple(skipped)

    @property
    def characters(self) -> int:
        """How many characters all documents have together."""
        return sum(document.characters for document in self.documents)

    def texts(self, size: int = CHUNK_CHARACTERS) -> Iterator[str]:
        """All text, document after document, in pieces: what a tokenizer is trained on."""
        for document in self.documents:
            yield from document.chunks(size=size)

    def __repr__(self) -> str:
        return f"Corpus({self.description!r}, {len(self._files)} files)"


def stdlib_corpus() -> Corpus:
    """The Python sources of the standard library of the Python that runs: real text on every machine.

    Every `.py` under `sysconfig.get_path("stdlib")` but installed packages, tests, `encodings`, `pydoc_data`,
    `idlelib`, `lib2to3`, `turtledemo` and `ensurepip`: some 450 files and 9 MB in Python 3.11. DataError where there is
    less than 1 MB (a Python whose library is stripped, or a zip file).

    >>> stdlib_corpus().characters > 1_000_000
    True
    """
    folder = Path(sysconfig.get_path("stdlib"))
    advice = "give a text file or a folder of them"
    if not folder.is_dir():
        raise DataError(f"this Python's standard library is not at {folder}, where its sources should be; {advice}")
    corpus = Corpus(
        folder, suffixes=(".py",), exclude=_STDLIB_EXCLUDED, description="the Python standard library's source"
    )
    size = sum(file.size for file in corpus._files)
    if size < _STDLIB_LEAST_BYTES:
        raise DataError(f"the standard library at {folder} holds only {size:,} bytes of Python source; {advice}")
    return corpus


def _walk(folder: Path, suffixes: tuple[str, ...] | None, exclude: set[str]) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in exclude]
        candidates = (
            name for name in names if not name.startswith(".") and (suffixes is None or name.endswith(suffixes))
        )
        files += [path for path in (Path(parent, name) for name in candidates) if path.is_file()]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _stat(path: Path, name: str, named: bool) -> _File:
    stat = path.stat()
    return _File(path.resolve(), name, stat.st_size, stat.st_mtime_ns, named)


def _count_characters(path: Path, binary_is_text: bool) -> tuple[int, str | None]:
    """The number of characters of a file, or what keeps it from being a text."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    characters = consumed = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                if not binary_is_text and consumed == 0 and b"\0" in block[:8192]:
                    return 0, "is a binary file (it has NUL bytes)"
                pending = len(decoder.getstate()[0])
                characters += len(decoder.decode(block))
                consumed += len(block)
            pending = len(decoder.getstate()[0])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        offset, byte = consumed - pending + error.start, error.object[error.start]
        return 0, (
            f"is not UTF-8: byte 0x{byte:02x} at offset {offset} ({error.reason}); "
            "convert it, for example with: iconv -f ITS_ENCODING -t UTF-8"
        )
    except OSError as error:
        return 0, f"can't be read: {error.strerror}"
    return characters, None if characters else "is empty; a corpus needs text"
