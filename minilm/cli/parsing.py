"""From the words of a command line to a dataclass."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["parse"]


def parse(kind, arguments: Sequence[str], verb: str, description: str, default=None):
    """An instance of the dataclass `kind`; help and errors (with the nearest name) are tyro's, which ends the process.

    ImportError, naming how to install it, without tyro.
    """
    try:
        import tyro
    except ImportError as error:
        raise ImportError(
            "the command line needs the package tyro, which is not installed: pip install tyro"
        ) from error
    given = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=f"minilm {verb}", description=description, args=list(arguments), **given)
