"""The operators and functions of Python, `math` and NumPy that a modifier may use, each plain and on symbols."""

from __future__ import annotations

import ast
import builtins
import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .graph import FLOAT, Graph, Node

__all__ = ["BINARY", "COMPARE", "FUNCTIONS", "UNARY"]


@dataclass(frozen=True)
class _Operation:
    plain: Callable
    symbolic: Callable


def _unary(plain: Callable, op: str) -> _Operation:
    return _Operation(plain, lambda graph, x: graph.apply(op, x))


def _binary(plain: Callable, op: str) -> _Operation:
    return _Operation(plain, lambda graph, x, y: graph.apply(op, x, y))


def _swapped(plain: Callable, op: str) -> _Operation:
    return _Operation(plain, lambda graph, x, y: graph.apply(op, y, x))


def _power(graph: Graph, x: Node, exponent: Node) -> Node:
    """Small whole powers are products, and a half is a root; others are the C library's."""
    n = exponent.value if exponent.is_constant else None
    if n == 0.5:
        return graph.apply("sqrt", x)
    if n is None or n != int(n) or not -16 <= n <= 16 or (n < 0 and x.type != FLOAT):
        return graph.apply("power", x, exponent)
    result, square, left = None, x, abs(int(n))
    while left:
        if left & 1:
            result = square if result is None else graph.apply("multiply", result, square)
        square, left = graph.apply("multiply", square, square) if left > 1 else square, left >> 1
    result = graph.constant(1) if result is None else result
    return graph.apply("divide", graph.constant(1.0), result) if n < 0 else result


def _clip(graph: Graph, x: Node, low: Node, high: Node) -> Node:
    return graph.apply("minimum", graph.apply("maximum", x, low), high)


def _sign(graph: Graph, x: Node) -> Node:
    zero, one = graph.constant(0), graph.constant(1)
    negative = graph.apply("where", graph.apply("less", x, zero), graph.constant(-1), x)
    return graph.apply("where", graph.apply("less", zero, x), one, negative)


def _folded(op: str) -> Callable:
    return lambda graph, *args: functools.reduce(lambda x, y: graph.apply(op, x, y), args)


def _whole(op: str) -> Callable:
    """math.floor and its like, which return integers."""
    return lambda graph, x: graph.integer(graph.apply(op, x)) if x.type == FLOAT else x


def _float_only(op: str) -> Callable:
    return lambda graph, x: graph.apply(op, x) if x.type == FLOAT else x


def _never(graph: Graph, *args: Node):
    raise TypeError("its argument must be known beforehand, not computed from score, b, h, q or k")


BINARY = {
    ast.Add: _binary(operator.add, "add"),
    ast.Sub: _binary(operator.sub, "subtract"),
    ast.Mult: _binary(operator.mul, "multiply"),
    ast.Div: _binary(operator.truediv, "divide"),
    ast.FloorDiv: _binary(operator.floordiv, "floor_divide"),
    ast.Mod: _binary(operator.mod, "remainder"),
    ast.Pow: _Operation(operator.pow, _power),
    ast.BitAnd: _binary(operator.and_, "bitwise_and"),
    ast.BitOr: _binary(operator.or_, "bitwise_or"),
    ast.BitXor: _binary(operator.xor, "bitwise_xor"),
}
_NOT = _Operation(operator.not_, lambda graph, x: graph.apply("invert", graph.truth(x)))
UNARY = {
    ast.USub: _unary(operator.neg, "negative"),
    ast.UAdd: _Operation(operator.pos, lambda graph, x: x),
    ast.Invert: _unary(operator.invert, "invert"),
    ast.Not: _NOT,
}
COMPARE = {
    ast.Lt: _binary(operator.lt, "less"),
    ast.LtE: _binary(operator.le, "less_equal"),
    ast.Gt: _swapped(operator.gt, "less"),
    ast.GtE: _swapped(operator.ge, "less_equal"),
    ast.Eq: _binary(operator.eq, "equal"),
    ast.NotEq: _binary(operator.ne, "not_equal"),
}

_OPERATORS = {**BINARY, **COMPARE}

FUNCTIONS: dict[Callable, _Operation] = {
    builtins.len: _Operation(len, _never),
    builtins.range: _Operation(range, _never),
    builtins.enumerate: _Operation(lambda *args: list(enumerate(*args)), _never),
    builtins.zip: _Operation(lambda *args: list(zip(*args)), _never),
    builtins.float: _Operation(float, lambda graph, x: graph.float32(x)),
    builtins.int: _Operation(int, lambda graph, x: graph.integer(x)),
    builtins.bool: _Operation(bool, lambda graph, x: graph.truth(x)),
    builtins.abs: _unary(abs, "absolute"),
    builtins.min: _Operation(min, _folded("minimum")),
    builtins.max: _Operation(max, _folded("maximum")),
    builtins.round: _Operation(round, _whole("rint")),
    math.floor: _Operation(math.floor, _whole("floor")),
    math.ceil: _Operation(math.ceil, _whole("ceil")),
    math.trunc: _Operation(math.trunc, _whole("trunc")),
    math.fabs: _Operation(math.fabs, lambda graph, x: graph.apply("absolute", graph.float32(x))),
    math.pow: _Operation(math.pow, lambda graph, x, y: _power(graph, graph.float32(x), y)),
    np.where: _Operation(lambda c, x, y: x if c else y, lambda graph, c, x, y: graph.apply("where", c, x, y)),
    np.clip: _Operation(lambda x, low, high: min(max(x, low), high), _clip),
    np.sign: _Operation(np.sign, _sign),
    np.square: _Operation(operator.mul, lambda graph, x: graph.apply("multiply", x, x)),
    np.float32: _Operation(float, lambda graph, x: graph.float32(x)),
    np.int32: _Operation(int, lambda graph, x: graph.integer(x)),
    np.int64: _Operation(int, lambda graph, x: graph.integer(x)),
    np.logical_and: _Operation(
        lambda x, y: bool(x and y), lambda graph, x, y: graph.apply("bitwise_and", graph.truth(x), graph.truth(y))
    ),
    np.logical_or: _Operation(
        lambda x, y: bool(x or y), lambda graph, x, y: graph.apply("bitwise_or", graph.truth(x), graph.truth(y))
    ),
    np.logical_not: _NOT,
}
for _name in ("exp", "exp2", "log", "log2", "sqrt", "tanh", "sin", "cos"):
    for _module in (math, np):
        FUNCTIONS[getattr(_module, _name)] = _unary(getattr(math, _name), _name)
for _function, _kind in (
    *((np.add, ast.Add), (np.subtract, ast.Sub), (np.multiply, ast.Mult), (np.true_divide, ast.Div)),
    *((np.floor_divide, ast.FloorDiv), (np.remainder, ast.Mod), (np.power, ast.Pow)),
    *((np.bitwise_and, ast.BitAnd), (np.bitwise_or, ast.BitOr), (np.bitwise_xor, ast.BitXor)),
    *((np.less, ast.Lt), (np.less_equal, ast.LtE), (np.greater, ast.Gt), (np.greater_equal, ast.GtE)),
    *((np.equal, ast.Eq), (np.not_equal, ast.NotEq)),
    *((operator.add, ast.Add), (operator.mul, ast.Mult), (operator.sub, ast.Sub), (operator.truediv, ast.Div)),
):
    FUNCTIONS[_function] = _OPERATORS[_kind]
for _function, _op in ((np.floor, "floor"), (np.ceil, "ceil"), (np.rint, "rint"), (np.trunc, "trunc")):
    FUNCTIONS[_function] = _Operation(_function, _float_only(_op))
for _function, _op in ((np.absolute, "absolute"), (np.negative, "negative")):
    FUNCTIONS[_function] = _unary(_function, _op)
for _function, _op in ((np.minimum, "minimum"), (np.maximum, "maximum")):
    FUNCTIONS[_function] = _binary(_function, _op)
