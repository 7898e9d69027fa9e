"""Whether a CUDA graph is recorded in this thread: what waits for the card, or the host, has to go another way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_recording", "recording"]

_recording = ContextVar("_recording", default=False)


@contextmanager
def recording() -> Iterator[None]:
    """A `with` block in which this thread records a graph.

    >>> with recording():
    ...     is_recording()
    True
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether a graph is recorded here."""
    return _recording.get()
