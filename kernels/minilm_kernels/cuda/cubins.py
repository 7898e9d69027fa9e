"""Cubins on disk: compiled once for each content of the sources, and found again by its digest."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .compiler import compile_source, digest

__all__ = ["cubin", "folder"]


def cubin(path: Path, target: str, defines: Mapping[str, object], options: Sequence[str]) -> bytes:
    """The machine code of `path` for `target`, from disk if it was made before."""
    place = folder(path)
    file = None
    if place is not None:
        file = place / f"{path.stem}.{target}.{digest(path, target, defines, options)}.cubin"
        with contextlib.suppress(OSError):
            return file.read_bytes()
    code = compile_source(path, target, defines, options).cubin
    if file is not None:
        _write(file, code)
    return code


def folder(path: Path) -> Path | None:
    """Where the cubins of the source `path` are kept, as the CPU's kernels are: in `NUMBA_CACHE_DIR` if set, else in
    `__pycache__` beside the source, else in the user's cache folder; None where none can be written to."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        choices = [Path(named) / f"{path.parent.name}_cubins"]
    else:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        choices = [path.parent / "__pycache__", user / "minilm" / f"{path.parent.name}_cubins"]
    for choice in choices:
        with contextlib.suppress(OSError):
            choice.mkdir(parents=True, exist_ok=True)
            if os.access(choice, os.W_OK):
                return choice
    return None


def _write(file: Path, code: bytes) -> None:
    """Written aside and renamed, so that no other process reads half a file; a full disk is no reason to fail."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(code)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
