"""Where in the user's code something was called, for error messages."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["where_called"]

_ENGINE_ROOMS = tuple(str(Path(__file__).parent.parent / room) for room in ("autograd", "ops"))


def where_called() -> str:
    """The innermost line of the call stack outside autograd and ops, as `file:line in function`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_ENGINE_ROOMS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
