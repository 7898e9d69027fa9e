"""What a user of the lab can mend: shown as one line, without a traceback."""

from __future__ import annotations

__all__ = ["LabError"]


class LabError(ValueError):
    """What was asked for can't be done; the message says what to ask for instead."""
