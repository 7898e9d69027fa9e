"""`minilm VERB ...`: finds the verb, and turns errors that a user can mend into one line."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# Each is a module beside this one, its name with _ for -, with run(arguments) -> exit status.
VERBS = {
    "train": "train a model on text; with no argument, on the Python standard library's source",
    "generate": "write text with a trained model",
    "embed": "write a vector for each line of a text, near those of lines that mean the same",
    "chat": "talk with a model that was trained on conversations",
    "serve": "answer requests of OpenAI's HTTP interface with a model",
    "convert": "write a model, a GGUF file say, as a folder that transformers loads",
    "check": "verify on a trained model what must be true of every language model",
    "info": "show versions, devices and the machine's speed",
    "bench": "check, time and plot the kernels beside one another and beside torch",
    "check-kernel": "verify a kernel of your own against the float64 reference",
}

_HELP = """minilm: a transformer library from scratch, on NumPy or CuPy arrays

usage: minilm [--threads N] VERB [options]

{verbs}

--threads N, before or after the verb, computes on N threads instead of OMP_NUM_THREADS or one for each usable core.
`minilm VERB --help` shows a verb's options, `minilm --version` the version. To begin: minilm train
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 1 for an error, 2 for a wrong command line, 130 for Ctrl-C."""
    try:
        arguments, threads = _without_threads(list(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        return _error(str(error), 2)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP.format(verbs="\n".join(f"  {verb:<13} {what}" for verb, what in VERBS.items())), end="")
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
        _set_threads(threads)
    except ValueError as error:
        return _error(str(error), 2)
    try:
        return _run(verb, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _without_threads(arguments: list[str]) -> tuple[list[str], int | None]:
    """The command line without `--threads N` or `--threads=N`, and N: it is every verb's, and is known before them."""
    rest, count = [], None
    words = iter(arguments)
    for word in words:
        if word != "--threads" and not word.startswith("--threads="):
            rest.append(word)
            continue
        given = word.partition("=")[2] if "=" in word else next(words, "nothing")
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"--threads takes a number of threads, 1 or more; {given} was given")
        count = int(given)
    return rest, count


def _set_threads(count: int | None) -> None:
    from minilm_kernels import set_num_threads
    from minilm_kernels.cores import requested

    if count is not None:
        set_num_threads(count)
    else:
        requested()  # raises if the variable OMP_NUM_THREADS is no number


def _run(verb: str, arguments: list[str]) -> int:
    from minilm.backend import guard_memory

    from .errors import said, user_errors

    try:
        with guard_memory():
            return importlib.import_module(f"minilm.cli.{verb.replace('-', '_')}").run(arguments)
    except BrokenPipeError:
        raise
    except user_errors() as error:
        return _error(said(error), 1)


def _error(message: str, status: int) -> int:
    print(f"minilm: error: {message}", file=sys.stderr)
    return status
