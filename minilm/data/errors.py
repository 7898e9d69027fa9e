"""The error for data that can't be used."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """A corpus, token file or prepared folder that can't be used; the message says what it is and what to do."""
