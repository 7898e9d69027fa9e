"""What a modifier computes, as a graph of numbers: score, b, h, q, k, constants, elements of arrays, and operations.

Equal computations are one node. Each node knows its type and whether it changes from column to column of a row of
scores ("varies"): what doesn't is computed once a row. An integer knows how large it may get, and has 64 bits if that
is beyond 32; a lane of 32 costs half as much.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["POSITIONS", "Graph", "Node"]

BOOL, INT32, INT64, FLOAT = "bool", "int32", "int64", "float32"
POSITIONS = ("b", "h", "q", "k")
# No batch, head or position number is beyond it; float32 holds all integers to it.
LARGEST_POSITION = 2**24


@dataclass(frozen=True, eq=False)
class Node:
    """`op` of `args`; `value` is a constant's, a position's name, or the number of the array that is loaded from."""

    op: str
    args: tuple[Node, ...]
    type: str
    varies: bool
    bound: int = 0  # largest magnitude, of an integer
    value: object = None

    @property
    def is_constant(self) -> bool:
        return self.op == "constant"


# Operations on constants alone are done at once, by these.
_FOLD: dict[str, Callable] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "absolute": abs,
    "minimum": min,
    "maximum": max,
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "invert": operator.not_,
}
_COMPARISONS = {"less", "less_equal", "equal", "not_equal"}
_BITWISE = {"bitwise_and", "bitwise_or", "bitwise_xor"}
FLOAT_FUNCTIONS = {"exp", "exp2", "log", "log2", "sqrt", "tanh", "sin", "cos", "floor", "ceil", "rint", "trunc"}


class Graph:
    """Makes nodes, one for each computation, and knows the arrays that they load from."""

    def __init__(self):
        self._nodes: dict[tuple, Node] = {}
        self.arrays: list[np.ndarray] = []
        # Loads that are done whatever the scores and positions are, not on one side of an `if` alone.
        self.unconditional: set[Node] = set()
        self.score = self._node("score", (), FLOAT, True)
        self.positions = {
            name: self._node("position", (), INT32, name == "k", LARGEST_POSITION, name) for name in POSITIONS
        }

    def constant(self, value) -> Node:
        if isinstance(value, (bool, np.bool_)):
            return self._node("constant", (), BOOL, False, 1, bool(value))
        if isinstance(value, (int, np.integer)):
            value = int(value)
            if abs(value) >= 2**63:
                raise ValueError(f"the integer {value} doesn't fit into 64 bits")
            return self._node("constant", (), _int_type(abs(value)), False, abs(value), value)
        return self._node("constant", (), FLOAT, False, 0, float(value))

    def dimension(self, slot: int, axis: int) -> Node:
        """The size of an array's axis, which the compiled code looks up."""
        bound = 2 ** self.arrays[slot].shape[axis].bit_length()
        return self._node("dimension", (), _int_type(bound), False, bound, (slot, axis))

    def load(self, array: np.ndarray, indices: tuple[Node, ...]) -> Node:
        """The element of `array` at these integers."""
        slot = next((i for i, known in enumerate(self.arrays) if known is array), len(self.arrays))
        if slot == len(self.arrays):
            self.arrays.append(array)
        return self.load_from(slot, indices)

    def load_from(self, slot: int, indices: tuple[Node, ...]) -> Node:
        array = self.arrays[slot]
        kind = array.dtype.kind
        bound = 1 if kind == "b" else 0 if kind == "f" else 2 ** (8 * array.itemsize - (kind == "i")) - 1
        type = {"b": BOOL, "f": FLOAT}.get(kind) or _int_type(bound)
        return self._node("load", indices, type, any(index.varies for index in indices), bound, slot)

    def apply(self, op: str, *args: Node) -> Node:
        """`op` of arguments of any types, converted as NumPy does it, but to float32 instead of float64."""
        if op == "where":
            condition, args = self.truth(args[0]), self._common(args[1:])
            if condition.is_constant or args[0] is args[1]:
                return args[0] if condition.value else args[1]
            return self._make(op, (condition, *args), args[0].type, max(x.bound for x in args))
        if op == "invert":
            (x,) = args
            return self._make(op, args, BOOL, 1) if x.type == BOOL else self.apply("subtract", self.constant(-1), x)
        if op in FLOAT_FUNCTIONS or op in ("divide", "power"):
            return self._make(op, tuple(self.float32(x) for x in args), FLOAT)
        if op in _BITWISE:
            args = self._common(args)
            if args[0].type == FLOAT:
                raise TypeError("&, | and ^ take truth values or integers, not floating-point numbers")
            bound = max(x.bound for x in args)
            return self._make(op, args, args[0].type, bound if args[0].type == BOOL else 2 * bound + 1)
        if op in _COMPARISONS:
            return self._make(op, self._common(args), BOOL, 1)
        args = tuple(self._number(x) for x in args)
        if any(x.type == FLOAT for x in args):
            return self._arithmetic(op, tuple(self.float32(x) for x in args), FLOAT, 0)
        bound = _bound(op, *(x.bound for x in args))
        type = _int_type(max(bound, *(x.bound for x in args)))
        return self._arithmetic(op, tuple(self._convert(x, type) for x in args), type, bound)

    def again(self, node: Node, args: tuple[Node, ...]) -> Node:
        """The same operation on other arguments of the same types."""
        return self._node(node.op, args, node.type, any(x.varies for x in args), node.bound, node.value)

    def truth(self, x: Node) -> Node:
        return x if x.type == BOOL else self.apply("not_equal", x, self.constant(0))

    def float32(self, x: Node) -> Node:
        return self._convert(x, FLOAT)

    def integer(self, x: Node) -> Node:
        """`x` rounded towards zero, as int() does it."""
        return self._convert(x, INT32) if x.type in (BOOL, FLOAT) else x

    def _number(self, x: Node) -> Node:
        return self._convert(x, INT32) if x.type == BOOL else x

    def _common(self, args: tuple[Node, ...]) -> tuple[Node, ...]:
        order = (BOOL, INT32, INT64, FLOAT)
        widest = max((x.type for x in args), key=order.index)
        return tuple(self._convert(x, widest) for x in args)

    def _convert(self, x: Node, type: str) -> Node:
        if x.type == type:
            return x
        if x.is_constant:
            value = float(x.value) if type == FLOAT else int(x.value)
            return self._node("constant", (), type, False, 0 if type == FLOAT else abs(value), value)
        bound = 0 if type == FLOAT else x.bound if x.type != FLOAT else 2**31 - 1
        return self._node(f"to_{type}", (x,), type, x.varies, bound)

    def _arithmetic(self, op: str, args: tuple[Node, ...], type: str, bound: int) -> Node:
        """With what is neutral left out: derivatives are full of it."""
        x, y = args if len(args) == 2 else (args[0], None)
        if op in ("add", "subtract") and _is(y, 0):
            return x
        if op == "add" and _is(x, 0):
            return y
        if op == "subtract" and _is(x, 0):
            return self._make("negative", (y,), type, bound)
        if op == "multiply" and (_is(x, 1) or _is(y, 1)):
            return y if _is(x, 1) else x
        return self._make(op, args, type, bound)

    def _make(self, op: str, args: tuple[Node, ...], type: str, bound: int = 0) -> Node:
        if all(x.is_constant for x in args) and (fold := _FOLD.get(op)) and not (op == "divide" and _is(args[1], 0)):
            return self._convert(self.constant(fold(*(x.value for x in args))), type)
        return self._node(op, args, type, any(x.varies for x in args), bound)

    def _node(self, op, args, type, varies, bound=0, value=None) -> Node:
        # repr tells 0.0 from -0.0 and NaN from nothing.
        key = (op, tuple(map(id, args)), type, repr(value))
        return self._nodes.setdefault(key, Node(op, args, type, varies, bound, value))


def _is(x: Node | None, value) -> bool:
    return x is not None and x.is_constant and x.value == value


def _int_type(bound: int) -> str:
    return INT32 if bound < 2**31 else INT64


def _bound(op: str, *bounds: int) -> int:
    """The largest magnitude of `op` on integers of these magnitudes; beyond 64 bits they wrap around, as NumPy's do."""
    if op in ("add", "subtract"):
        bound = sum(bounds)
    elif op == "multiply":
        bound = math.prod(bounds)
    elif op == "remainder":
        bound = bounds[1]
    else:
        bound = max(bounds)
    return min(bound, 2**63)
