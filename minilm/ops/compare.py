"""Comparisons and choices: their results are booleans or places, through which no gradient flows."""

from __future__ import annotations

from minilm_kernels import ordering

from minilm.autograd import Array, op
from minilm.backend import array_module

__all__ = [
    "all", "any", "argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "greater",
    "greater_equal", "invert", "isfinite", "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or",
    "not_equal",
]  # fmt: skip


@op
def equal(a: Array, b: Array):
    """a == b"""
    return a == b


@op
def not_equal(a: Array, b: Array):
    """a != b"""
    return a != b


@op
def less(a: Array, b: Array):
    """a < b"""
    return a < b


@op
def less_equal(a: Array, b: Array):
    """a <= b"""
    return a <= b


@op
def greater(a: Array, b: Array):
    """a > b"""
    return a > b


@op
def greater_equal(a: Array, b: Array):
    """a >= b"""
    return a >= b


@op
def logical_and(a: Array, b: Array):
    """Whether both are true."""
    return array_module(a, b).logical_and(a, b)


@op
def logical_or(a: Array, b: Array):
    """Whether one is true."""
    return array_module(a, b).logical_or(a, b)


@op
def logical_not(x: Array):
    """Whether it is false."""
    return array_module(x).logical_not(x)


@op
def bitwise_and(a: Array, b: Array):
    """a & b: of booleans, whether both are true; of integers, bit by bit."""
    return a & b


@op
def bitwise_or(a: Array, b: Array):
    """a | b: of booleans, whether one is true; of integers, bit by bit."""
    return a | b


@op
def bitwise_xor(a: Array, b: Array):
    """a ^ b: of booleans, whether they differ; of integers, bit by bit."""
    return a ^ b


@op
def invert(x: Array):
    """~x: of booleans, the opposite; of integers, every bit's."""
    return ~x


@op
def all(x: Array, axis=None, keepdims=False):
    """Whether all elements are true."""
    return x.all(axis=axis, keepdims=keepdims)


@op
def any(x: Array, axis=None, keepdims=False):
    """Whether one element is true."""
    return x.any(axis=axis, keepdims=keepdims)


@op
def isnan(x: Array):
    """Whether it is not a number."""
    return array_module(x).isnan(x)


@op
def isfinite(x: Array):
    """Whether it is neither NaN nor infinite."""
    return array_module(x).isfinite(x)


@op
def argmax(x: Array, axis=None, keepdims=False):
    """The place of the first largest element."""
    return array_module(x).argmax(x, axis=axis, keepdims=keepdims)


@op
def argmin(x: Array, axis=None, keepdims=False):
    """The place of the first smallest element."""
    return array_module(x).argmin(x, axis=axis, keepdims=keepdims)


@op
def argsort(x: Array, axis=-1):
    """The places that sort `x`; equal elements keep their order."""
    return ordering.argsort(x, axis)
