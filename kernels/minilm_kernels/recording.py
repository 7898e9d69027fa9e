"""Whether a CUDA graph is recorded in this thread: what waits for the card, or the host, has to go another way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["is_recording", "kept", "recording"]

_recording: ContextVar[list | None] = ContextVar("_recording", default=None)
_Kept = TypeVar("_Kept")


@contextmanager
def recording() -> Iterator[list]:
    """A `with` block in which this thread records a graph; gives what must live for as long as the graph does.

    >>> with recording() as needed:
    ...     is_recording(), kept("a table")
    (True, 'a table')
    >>> needed
    ['a table']
    """
    needed: list = []
    token = _recording.set(needed)
    try:
        yield needed
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether a graph is recorded here."""
    return _recording.get() is not None


def kept(thing: _Kept) -> _Kept:
    """`thing`; kept with the graph that is recorded, if one is: memory that it reads, and that others might give up."""
    needed = _recording.get()
    if needed is not None:
        needed.append(thing)
    return thing
