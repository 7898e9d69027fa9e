"""Which errors are the user's to mend: they are shown as one line, without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UsageError", "as_usage_error", "said", "user_errors"]

_SYSTEM = {
    errno.ENOENT: "there is no such file or folder",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "is below a file; name another place",
    errno.EACCES: "may not be read or written by you; name another place, or change its permissions",
    errno.EROFS: "can't be written: its file system is read-only; name another place",
    errno.ENOSPC: "the disk is full; make room there, or name another place",
    errno.EDQUOT: "your share of the disk is full; make room there, or name another place",
    errno.EFBIG: "a file can't become so large there; raise the limit (ulimit -f), or name another place",
}


class UsageError(ValueError):
    """Something that was asked for can't be done; the message says what to ask for instead."""


def user_errors() -> tuple[type[Exception], ...]:
    """The exceptions whose message is all that a user needs."""
    from minilm.backend import OutOfMemoryError
    from minilm.checkpoint import CheckpointError
    from minilm.data import DataError
    from minilm.training import ConfigError, DivergedError, RunFolderError

    return (
        *(UsageError, ConfigError, DataError, CheckpointError, RunFolderError, DivergedError),
        *(OutOfMemoryError, OSError, ImportError),
    )


def said(error: Exception) -> str:
    """What a user is told of an error: the system's in words that say what to do, with the file's name."""
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return ": ".join(part for part in (error.filename and str(error.filename), _SYSTEM[error.errno]) if part)
    return str(error)


@contextmanager
def as_usage_error() -> Iterator[None]:
    """A `with` block whose ValueErrors are about what the user asked for (options, names of tokens, files)."""
    try:
        yield
    except (ValueError, KeyError) as error:
        if isinstance(error, user_errors()):
            raise
        # The text of a KeyError is its argument in quotation marks.
        raise UsageError(error.args[0] if isinstance(error, KeyError) else str(error)) from error
