"""Which errors are the user's to mend: they are shown as one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UsageError", "as_usage_error", "user_errors"]


class UsageError(ValueError):
    """Something that was asked for can't be done; the message says what to ask for instead."""


def user_errors() -> tuple[type[Exception], ...]:
    """The exceptions whose message is all that a user needs."""
    from minilm.backend import OutOfMemory
    from minilm.checkpoint import CheckpointError
    from minilm.data import DataError
    from minilm.training import ConfigError, DivergedError, OutOfMemoryError, RunFolderError

    return (
        *(UsageError, ConfigError, DataError, CheckpointError, RunFolderError, DivergedError, OutOfMemoryError),
        *(OutOfMemory, OSError, ImportError),
    )


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
