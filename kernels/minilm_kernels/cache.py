"""Compiled kernels on disk: what a file there was compiled from is in its name, so that no stale one is ever loaded.

Numba's own cache looks at the file of the function alone, and so doesn't see the edit of a helper that it inlined from
another file; and two processes that save at once share an index, in which one's entry may come to name the other's
code. Here a compiled kernel's file is named after a digest of its source, of every file that this imports from, of its
argument types, of the processor and of Numba's version. There is no index: a file is written whole or not at all.

The folder is Numba's choice: `NUMBA_CACHE_DIR` if set, else `__pycache__` beside the source, else, where that can't be
written to (a package installed by somebody else), the user's cache folder, `~/.cache/numba` on Linux.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pickle
import re
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numba
from numba.core.caching import FunctionCache, NullCache
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

__all__ = ["folder", "kernel_cache", "sources"]

_PACKAGE = Path(__file__).parent
# Imported by kernels' files for the Python around a kernel; nothing in them is compiled.
_NEVER_COMPILED = {_PACKAGE / "registry.py", _PACKAGE / "checks.py"}
_IMPORT = re.compile(
    rf"^[ \t]*from[ \t]+(\.*|{_PACKAGE.name}\b)\.?([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|.*)", re.MULTILINE
)


def kernel_cache(function):
    """The cache of a kernel, for a Numba dispatcher; one that keeps nothing, with a warning, where no folder can."""
    try:
        return _KernelCache(function)
    except RuntimeError:  # no folder can be written to, or the function has no file
        if os.path.exists(inspect.getfile(function)):
            warnings.warn(
                "compiled kernels can't be kept: neither the package's folder nor the user's cache folder can be "
                "written to; set NUMBA_CACHE_DIR to a folder that can",
                RuntimeWarning,
                stacklevel=2,
            )
        return NullCache()


def folder() -> str | None:
    """Where the compiled kernels of this folder's files are kept; those of a folder beside it, in one beside it."""
    try:
        return FunctionCache(folder).cache_path
    except RuntimeError:
        return None


def sources(path: str | Path) -> list[Path]:
    """The Python files from which a kernel in the file `path` may be made: itself and, through relative imports and
    imports from this package, all that it imports from; sorted.

    >>> import minilm_kernels.chunks
    >>> [file.name for file in sources(minilm_kernels.chunks.__file__)]
    ['cache.py', 'chunks.py', 'cores.py', 'jit.py', 'pool.py']
    """
    found, waiting = set(), [Path(path)]
    while waiting:
        file = waiting.pop()
        if file not in found and file not in _NEVER_COMPILED:
            found.add(file)
            waiting += _read(file)[1]
    return sorted(found)


def _read(file: Path) -> tuple[bytes, tuple[Path, ...]]:
    """A file's digest, and the files that it imports from."""
    status = file.stat()
    return _read_version(file, status.st_mtime_ns, status.st_size)


@cache
def _read_version(file: Path, mtime: int, size: int) -> tuple[bytes, tuple[Path, ...]]:
    text = file.read_bytes()
    imported = set()
    for start, module, names in _IMPORT.findall(text.decode("utf-8")):
        if start == "":
            continue
        folder = file.parents[len(start) - 1] if start[0] == "." else _PACKAGE
        if module:
            imported.add(_module(folder.joinpath(*module.split("."))))
        else:  # `from . import a, b`: modules, or names in the folder's __init__.py
            words = [word for word in re.findall(r"\w+", names) if word != "as"]
            imported |= {_module(folder / word) or _module(folder) for word in words}
    return hashlib.sha256(text).digest(), tuple(imported - {None})


def _module(name: Path) -> Path | None:
    """The file of a module or of a folder of modules, if there is one."""
    return next((file for file in (name.with_suffix(".py"), name / "__init__.py") if file.is_file()), None)


class _KernelCache(FunctionCache):
    """Numba's cache of a function, with files that are named by their content."""

    def __init__(self, function):
        super().__init__(function)
        path = Path(inspect.getfile(function))
        self._is_ours = _PACKAGE in path.parents
        stamp = hashlib.sha256(repr((numba.__version__, self._impl.locator.get_source_stamp())).encode())
        for file in sources(path) if path.is_file() else ():
            stamp.update(_read(file)[0])
        self._cache_file = _Files(Path(self._cache_path), self._impl.filename_base, stamp.hexdigest()[:16])

    def load_overload(self, sig, target_context):
        """As Numba's; for kernels of this package without making ready to compile anything, which takes half a second.

        What is loaded is only linked, and no kernel here links with what that would bring (hashes of texts, say).
        """
        if not self._is_ours:
            return super().load_overload(sig, target_context)
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _Files:
    """The files of one kernel: name-line.python-version.stamp.key.nbc."""

    def __init__(self, folder: Path, name: str, stamp: str):
        self._folder, self._name, self._stamp = folder, name, stamp

    def load(self, key):
        try:
            return pickle.loads(self._path(key).read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def save(self, key, data) -> None:
        # A kernel runs whether or not it could be kept: on a full disk, say.
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=f"{self._name}.", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(dumps(data))
                os.replace(temporary, self._path(key))
            except BaseException:
                os.unlink(temporary)
                raise
            self._remove(lambda file: f".{self._stamp}." not in file.name)  # compiled from what the source was

    def flush(self) -> None:
        self._remove(lambda file: True)

    def _path(self, key) -> Path:
        return self._folder / f"{self._name}.{self._stamp}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def _remove(self, which) -> None:
        """Removes those of the kernel's files that `which` is true of, from whatever line of the source."""
        for file in self._folder.glob(f"{self._name.rpartition('-')[0]}-*.nbc"):
            if which(file):
                file.unlink(missing_ok=True)
