"""From the words of a command line to shapes, options and passes of a workload."""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Iterable
from typing import Any

from .errors import LabError
from .workload import Workload

__all__ = ["choose", "option_values", "parse_shapes", "variants"]


def choose(what: str, words: str, known: Iterable[str]) -> list[str]:
    """The comma-separated names in `words`, "all" being all that are known; LabError for an unknown one."""
    known = list(known)
    if words == "all":
        return known
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise LabError(f"there is no {what} {name!r}; {hint}")
    if not names:
        raise LabError(f"no {what} is named; there are: {', '.join(known)}")
    return names


def parse_shapes(workload: Workload, words: str) -> list[dict[str, int]]:
    """Shapes written as "1,12,4096,64; 12,4,64,32", or a preset's name, as one dictionary of sizes each."""
    shapes: list[tuple[int, ...]] = []
    form = ",".join(workload.sizes)
    for word in (part.strip() for part in words.split(";")):
        if word in workload.presets:
            shapes += workload.presets[word]
            continue
        try:
            shape = tuple(int(number) for number in word.split(","))
        except ValueError:
            presets = ", ".join(workload.presets)
            raise LabError(
                f"{word!r} is no shape of {workload.operation}; expected {form} as in {_example(workload)!r}, "
                f"several with ; between them, or one of the presets {presets}"
            ) from None
        if len(shape) != len(workload.sizes) or min(shape) < 1:
            raise LabError(
                f"{word!r} is no shape of {workload.operation}; expected {len(workload.sizes)} positive integers "
                f"{form}, as in {_example(workload)!r}"
            )
        for name, size in zip(workload.sizes, shape):
            if size % workload.multiple_of.get(name, 1):
                raise LabError(
                    f"{word!r} is no shape of {workload.operation}; expected {name} to be a multiple of "
                    f"{workload.multiple_of[name]}"
                )
        shapes.append(shape)
    return [dict(zip(workload.sizes, shape)) for shape in dict.fromkeys(shapes)]


def _example(workload: Workload) -> str:
    return ",".join(map(str, workload.presets["default"][0]))


def option_values(words: list[str], workloads: list[Workload]) -> dict[str, tuple]:
    """What argparse didn't know, such as ["--causal", "true,false"], as values of the workloads' own options."""
    known = sorted({name for workload in workloads for name in workload.options})
    given: dict[str, tuple] = {}
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    while rest:
        flag = rest.pop(0)
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in known:
            names = ", ".join(workload.operation for workload in workloads)
            has = f"has the options {', '.join(f'--{option}' for option in known)}" if known else "has no options"
            raise LabError(f"unknown argument {flag!r}; besides those of every operation, {names} {has}")
        if not rest or rest[0].startswith("--"):
            raise LabError(f"{flag} needs a value, as in {flag} {_shown(known_values(workloads, name))}")
        usual, all_words = known_values(workloads, name), _words(workloads, name)
        given[name] = tuple(_checked(word, flag, usual, all_words) for word in rest.pop(0).split(","))
    return given


def _words(workloads: list[Workload], name: str) -> list[str]:
    """The words that an option may be, those that are timed and those that are checked."""
    having = [workload for workload in workloads if name in workload.options]
    values = [value for workload in having for value in (*workload.options[name], *workload.awkward.get(name, ()))]
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))


def _checked(word: str, flag: str, usual: tuple, words: list[str]) -> Any:
    """The value that a word stands for; LabError where those that are usual are of another kind."""
    if all(isinstance(value, str) for value in usual):  # "none" is a word there
        if word not in words:
            raise LabError(f"{flag} {word}: expected one of {', '.join(words)}")
        return word
    value = _value(word)
    switch = all(isinstance(other, bool) for other in usual)
    if isinstance(value, str) or (switch and not isinstance(value, bool)):
        kind = "true or false" if switch else "a number"
        raise LabError(f"{flag} {word}: expected {kind}, as in {flag} {_shown(usual)}")
    return value


def known_values(workloads: list[Workload], name: str) -> tuple:
    """The values of an option that are timed unless asked otherwise."""
    return next(workload.options[name] for workload in workloads if name in workload.options)


def variants(workload: Workload, given: dict[str, tuple]) -> list[dict[str, Any]]:
    """All combinations of the options' values."""
    values = {name: given.get(name, default) for name, default in workload.options.items()}
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def _shown(values: tuple) -> str:
    return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


def _value(word: str) -> Any:
    """true, false, none, a number, or else the word itself."""
    words = {"true": True, "false": False, "none": None}
    if word.lower() in words:
        return words[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
