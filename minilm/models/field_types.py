"""Whether values that come from a file are what a dataclass says its fields are."""

from __future__ import annotations

import math
import types
import typing

__all__ = ["check_fields"]

_MOST = {"layers": 10_000, "n_layer": 10_000, "num_labels": 1_000_000}  # of what is made one by one


def check_fields(cls: type, values: dict) -> None:
    """ValueError, naming it, for a value that is not of its field's type, not finite, or of an absurd size.

    None where a switch, a list or an object is expected is left to the class, for published files have it.

    >>> import dataclasses
    >>> Sizes = dataclasses.make_dataclass("Sizes", [("width", int), ("dropout", float)])
    >>> check_fields(Sizes, {"width": 4, "dropout": 0})
    >>> check_fields(Sizes, {"width": "4"})
    Traceback (most recent call last):
        ...
    ValueError: width is '4', a str; expected int
    """
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        hint = hints[name]
        if value is None and hint not in (int, float, str):
            continue
        if not _fits(value, hint):
            expected = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
            finite = " that is finite" if hint is float else ""
            raise ValueError(f"{name} is {value!r:.60}, a {type(value).__name__}; expected {expected}{finite}")
        most = next((most for end, most in _MOST.items() if name.endswith(end)), 2**63 - 1)
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{name} is {value:.6g}; at most {most:,} is read")


def _fits(value, hint) -> bool:
    kind = typing.get_origin(hint)
    if kind in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if kind is list:
        return isinstance(value, list) and all(_fits(item, *typing.get_args(hint)) for item in value)
    if kind is dict:
        return isinstance(value, dict)  # the keys of a JSON object are strings, whatever they stand for
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    return type(value) is hint
