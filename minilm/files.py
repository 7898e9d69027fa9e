"""Files that appear whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_write", "naming", "replacing", "sync_folder"]


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """A `with` block whose OSErrors (a full disk, say) name this file, where they name none or one that is aside."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the name of a file to write, which takes the place of `path` when the block ends, on disk and whole.

    If the block raises, `path` is left as it was and nothing else is left behind.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def atomic_write(path: str | os.PathLike, content: str | bytes) -> Path:
    """Writes `content` (text as UTF-8) beside `path`, puts it on disk, and renames it to `path`; returns the path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(Path(folder, "a.txt"), "whole").read_text()
    'whole'
    """
    with naming(path), replacing(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(path)


def sync_folder(path: str | os.PathLike) -> None:
    """Puts the names in a folder on disk (a rename is only then safe), where the system lets a folder be synced."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
