"""The fields of a request's JSON: each is taken once, checked, and what nobody took is refused by name."""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import bad_request

__all__ = ["Fields", "read_json"]


def read_json(body: bytes) -> Fields:
    """The fields of a JSON object; 400 for anything else, NaN, infinities and halves of a surrogate pair included."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    try:
        values = json.loads(body.decode("utf-8"), parse_constant=refuse)
        if b"\\u" in body:  # an escape may be half of a surrogate pair, which is no text and can't be answered with
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise bad_request(f"the body is not JSON in UTF-8: {what}") from None
    if not isinstance(values, dict):
        raise bad_request(f"the body is a JSON {_kind(values)}; expected an object")
    return Fields(values)


class Fields:
    """The fields of a JSON object, to be taken one by one; null is as good as absent.

    >>> fields = Fields({"n": 2, "seed": None})
    >>> fields.integer("n", 1, low=1), fields.integer("seed", 0)
    (2, 0)
    """

    def __init__(self, values: dict[str, Any], inside: str = "") -> None:
        self.left = {name: value for name, value in values.items() if value is not None}
        self.inside = inside  # the path of the object in the request, for messages

    def take(self, name: str, default=None):
        """A field of any kind."""
        return self.left.pop(name, default)

    def integer(self, name: str, default: int | None, low: int = 0, high: float = math.inf) -> int | None:
        """An integer from `low` to `high`."""
        return self._number(name, default, int, f"an integer {_range(low, high)}", low, high)

    def number(self, name: str, default: float | None, low: float, high: float = math.inf) -> float | None:
        """A number from `low` to `high`."""
        return self._number(name, default, (int, float), f"a number {_range(low, high)}", low, high)

    def boolean(self, name: str, default: bool = False) -> bool:
        """true or false."""
        return self._typed(name, default, bool, "true or false")

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text."""
        return self._typed(name, default, str, "a text")

    def object(self, name: str) -> Fields | None:
        """The fields of an object, None if there is none."""
        values = self._typed(name, None, dict, "an object")
        return None if values is None else Fields(values, self._path(name))

    def finish(self, neutral: dict[str, tuple] | None = None) -> None:
        """400 for fields that nobody took, unless they ask for what is done anyway: their `neutral` values."""
        names = [name for name, value in self.left.items() if value not in (neutral or {}).get(name, ())]
        if names:
            paths = ", ".join(self._path(name) for name in names)
            raise bad_request(f"not supported: {paths}; leave it out", self._path(names[0]), "unsupported_parameter")

    def wrong(self, name: str, value, expected: str):
        """The error for a field that is not as it has to be."""
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 80 else shown[:80] + "..."
        return bad_request(f"{self._path(name)} is {shown}; expected {expected}", self._path(name), "invalid_value")

    def _number(self, name, default, kinds, expected, low, high):
        value = self._typed(name, default, kinds, expected)
        if value is not None and not low <= value <= high:
            raise self.wrong(name, value, expected)
        return value

    def _typed(self, name, default, kinds, expected):
        value = self.left.pop(name, default)
        if value is None or (isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))):
            return value
        raise self.wrong(name, value, expected)

    def _path(self, name: str) -> str:
        return f"{self.inside}.{name}" if self.inside else name


def _range(low: float, high: float) -> str:
    return f"of at least {low}" if high == math.inf else f"from {low} to {high}"


def _kind(value) -> str:
    return {list: "array", str: "text", bool: "boolean", type(None): "null"}.get(type(value), "number")
