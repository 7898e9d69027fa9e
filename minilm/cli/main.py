"""`minilm VERB ...`: finds the verb, and turns errors that a user can mend into one line."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# Each is a module beside this one with run(arguments) -> exit status.
VERBS = {
    "train": "train a model on text; with no argument, on the Python standard library's source",
    "generate": "write text with a trained model",
    "check": "verify on a trained model what must be true of every language model",
    "info": "show versions, devices and the machine's speed",
}

_HELP = """minilm: a transformer library from scratch, on NumPy or CuPy arrays

usage: minilm VERB [options]

{verbs}

`minilm VERB --help` shows a verb's options, `minilm --version` the version. To begin: minilm train
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 1 for an error, 2 for a wrong command line, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())), end="")
        return 0
    verb = arguments.pop(0)
    if verb == "--version":
        from minilm import __version__

        print(f"minilm {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(VERBS)}"
        return _error(f"there is no verb {verb!r}; {hint}", 2)
    try:
        return _run(verb, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(verb: str, arguments: list[str]) -> int:
    from .errors import user_errors

    try:
        return importlib.import_module(f"minilm.cli.{verb}").run(arguments)
    except BrokenPipeError:
        raise
    except user_errors() as error:
        return _error(str(error), 1)


def _error(message: str, status: int) -> int:
    print(f"minilm: error: {message}", file=sys.stderr)
    return status
