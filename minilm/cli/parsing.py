"""From the words of a command line to a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

__all__ = ["parse", "place"]


def place(name: str):
    """What the help calls a field that is given by its place: `Annotated[str, place("MODEL")]`."""
    import tyro

    return tyro.conf.arg(metavar=name)


def parse(kind, arguments: Sequence[str], verb: str, description: str, default=None, positional: str | None = None):
    """An instance of the dataclass `kind`; help and errors (with the nearest name) are tyro's, which ends the process.

    `positional` fields, the "required" ones or "all", are given by their place. ImportError, naming how to install it,
    without tyro.
    """
    try:
        import tyro
    except ImportError as error:
        raise ImportError(
            "the command line needs the package tyro, which is not installed: pip install tyro"
        ) from error
    if positional is not None:
        places = {"required": tyro.conf.PositionalRequiredArgs, "all": tyro.conf.Positional}
        kind = Annotated[kind, places[positional]]
    given = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=f"minilm {verb}", description=description, args=list(arguments), **given)
