"""Generated modules: a file each, named after its text, so that a second process finds its compiled code at once.

The files are where Numba keeps the compiled code of files that can't be written beside: in `NUMBA_CACHE_DIR` if that
is set, else in the user's cache folder (`XDG_CACHE_HOME`, `~/.cache` on Linux), else, if neither can be written to, in
a temporary folder of this process. A file is written whole or not at all, and never again.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

__all__ = ["folder", "module_of"]

_loaded: dict[str, ModuleType] = {}


def module_of(text: str) -> ModuleType:
    """The module with this text, imported."""
    name = f"minilm_mod_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    if name not in _loaded:
        _loaded[name] = _imported(name, _written(folder(), name, text))
    return _loaded[name]


@functools.cache
def folder() -> Path:
    """Where generated modules are kept."""
    for place in _places():
        path = place / "minilm_mods"
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError:
            continue
        return path
    path = Path(tempfile.mkdtemp(prefix="minilm_mods_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _places() -> list[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return [Path(given)]
    from numba.misc.appdirs import AppDirs

    return [Path(AppDirs(appname="minilm", appauthor=False).user_cache_dir)]


def _written(path: Path, name: str, text: str) -> Path:
    """The file of a module. One that is there already is left as it is: its compiled code goes by its time."""
    file = path / f"{name}.py"
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return file
    handle, temporary = tempfile.mkstemp(dir=path, prefix=f"{name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        if file.is_file() and file.read_text(encoding="utf-8") == text:  # another process was faster
            os.unlink(temporary)
        else:
            os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def _imported(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where Numba looks for it when it loads compiled code
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
