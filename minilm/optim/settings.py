"""Checks of settings: each returns the value as a plain Python number (a NumPy float64 would promote arrays)."""

from __future__ import annotations

import math

__all__ = ["betas", "count", "flag", "fraction", "nonnegative", "number", "positive"]


def number(name: str, value) -> float:
    """`value` as a finite float."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {value!r}; expected a number")
    result = float(value)
    if not math.isfinite(result):
        raise ValueError(f"{name} is {result}; expected a finite number")
    return result


def nonnegative(name: str, value) -> float:
    """`value` as a finite float of 0 or more."""
    result = number(name, value)
    if result < 0:
        raise ValueError(f"{name} is {result}; expected 0 or more")
    return result


def positive(name: str, value) -> float:
    """`value` as a finite float above 0."""
    result = number(name, value)
    if result <= 0:
        raise ValueError(f"{name} is {result}; expected more than 0")
    return result


def fraction(name: str, value) -> float:
    """`value` as a float in [0, 1]."""
    result = number(name, value)
    if not 0 <= result <= 1:
        raise ValueError(f"{name} is {result}; expected a number from 0 to 1")
    return result


def betas(value) -> tuple[float, float]:
    """Two decay rates in [0, 1)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas is {value!r}; expected two numbers, as (0.9, 0.999)")
    first, second = (number(f"betas[{i}]", beta) for i, beta in enumerate(value))
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ValueError(f"betas is {(first, second)}; expected two numbers of 0 or more and less than 1")
    return first, second


def count(name: str, value, least: int = 0) -> int:
    """`value` as an int of `least` or more."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected a whole number")
    result = value.__index__()
    if result < least:
        raise ValueError(f"{name} is {result}; expected {least} or more")
    return result


def flag(name: str, value) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return value
