"""Loads a user's own file of kernels into the registry."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from pathlib import Path

from .. import registry
from .errors import LabError

__all__ = ["include"]


def include(path: str | Path, device: str = "cpu") -> list[registry.Implementation]:
    """Runs the file; returns the implementations that it registered, which are to run on `device`.

    LabError if the file can't be read, raises an error (with its line), registers nothing, or registers something that
    is no implementation of a known operation.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"there is no file {path}; expected a Python file that registers a kernel")
    known = registry.operations()
    before = _entries(known)
    specification = importlib.util.spec_from_file_location(f"included_{path.stem}", path.resolve())
    if specification is None or specification.loader is None:
        raise LabError(f"{path} is not a Python file (*.py)")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except SyntaxError as error:
        raise LabError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise LabError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    for operation in registry.operations():
        if operation not in known:
            near = difflib.get_close_matches(operation, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise LabError(f"{path} registers {operation!r}, and there is no such operation; {hint}")
    new = [entry for key, entry in _entries(known).items() if before.get(key) is not entry]
    if not new:
        raise LabError(
            f'{path} registers no kernel; decorate one: @register("attention", name="mine", device="cpu") '
            "with `from minilm_kernels.registry import register`"
        )
    for entry in new:
        if entry.name == "reference":
            raise LabError(
                f"{path} replaces the reference of {entry.operation}, which is what kernels are held against"
            )
        if entry.device not in ("any", device):
            raise LabError(
                f"{path}: {entry.name!r} of {entry.operation} runs on {entry.device}, and this on {device}: "
                f"choose --device {entry.device}"
            )
    return new


def _entries(operations: list[str]) -> dict[tuple[str, str], registry.Implementation]:
    return {(entry.operation, entry.name): entry for name in operations for entry in registry.implementations(name)}


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file the error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    numbers = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    return f", line {numbers[-1]}" if numbers else ""
