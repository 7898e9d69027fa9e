"""The lines of a generated function that compute nodes: each once, in a row's columns or once a row."""

from __future__ import annotations

import math

from ..contract import NO_GRADIENT
from .graph import FLOAT, Graph, Node
from .lower import affine_in_k, order

__all__ = ["Lines", "table_places"]

# How one number that is the same in the whole row is computed; {0}, {1}, {2} are the arguments.
_SCALAR = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "floor_divide": "{0} // {1}",
    "remainder": "{0} % {1}",
    "power": "{0} ** {1}",
    "negative": "-{0}",
    "absolute": "abs({0})",
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "maximum": "{0} if {0} > {1} or {0} != {0} else {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "invert": "not {0}",
    "where": "{1} if {0} else {2}",
    **{f"to_{type}": "{0}" for type in ("int32", "int64", "float32")},
    **{name: f"math.{name}({{0}})" for name in ("exp", "log", "log2", "sqrt", "tanh", "sin", "cos")},
    **{name: f"np.{name}({{0}})" for name in ("exp2", "floor", "ceil", "rint", "trunc")},
}
_FLOAT_SCALAR = {"floor_divide": "np.floor({0} / {1})", "remainder": "{0} - np.floor({0} / {1}) * {1}"}
_POSITION = {"b": "b", "h": "h", "q": "t"}


def table_places(graph: Graph) -> list[int]:
    """Where in the table each array's entries begin: its address, then its shape."""
    places, place = [], 0
    for array in graph.arrays:
        places.append(place)
        place += 1 + array.ndim
    if place > NO_GRADIENT:
        raise ValueError(
            f"the modifier reads {len(graph.arrays)} arrays, whose addresses and shapes take {place} places in a table "
            f"of {NO_GRADIENT}; put some of them together"
        )
    return places


class Lines:
    """The lines that compute some nodes: `row` once a row, `splats` of that into vectors, `columns` in the loop."""

    def __init__(self, graph: Graph, roots: list[Node]):
        self.graph, self.places = graph, table_places(graph)
        self.row: list[str] = []
        self.splats: list[str] = []
        self.columns: list[str] = []
        self._scalars: dict[Node, str] = {}
        self._vectors: dict[Node, str] = {}
        self._needed = order(roots, self._needs)
        for node in self._needed:
            if node.varies:
                self.vector(node)

    def uses(self, op: str) -> bool:
        return any(node.op == op and node.varies for node in self._needed)

    def _needs(self, node: Node) -> tuple[Node, ...]:
        return () if node.op == "load" and self._in_a_row(node) else node.args

    def _in_a_row(self, node: Node) -> tuple[int, Node] | None:
        """`step` and `rest` if the elements loaded are those numbered rest + step * k of a row, the step 1 or -1."""
        if not node.varies or any(x.varies for x in node.args[:-1]):
            return None
        affine = affine_in_k(self.graph, node.args[-1])
        return affine if affine is not None and affine[0] in (1, -1) else None

    def scalar(self, node: Node) -> str:
        """The name, or the constant, of a number that is the same in the whole row."""
        for part in order([node]):
            if part not in self._scalars:
                self._scalars[part] = self._scalar(part)
        return self._scalars[node]

    def _scalar(self, node: Node) -> str:
        if node.is_constant:
            return _constant(node)
        if node.op == "position":
            text = _POSITION[node.value]
        elif node.op == "dimension":
            slot, axis = node.value
            text = f"table[{self.places[slot] + 1 + axis}]"
        elif node.op == "load":
            text = f"element(table[{self.places[node.value]}], {self._flat(node)}, {self._dtype(node)})"
        else:
            args = [self._scalars[x] for x in node.args]
            floats = _FLOAT_SCALAR if node.type == FLOAT else {}
            text = floats.get(node.op, _SCALAR.get(node.op, "")).format(*args)
        text = text if node.type == "bool" else f"np.{node.type}({text})"
        return self._named(self.row, "row", text)

    def vector(self, node: Node) -> str:
        """The name of a node's values in eight columns."""
        if node not in self._vectors:
            self._vectors[node] = self._vector(node)
        return self._vectors[node]

    def _vector(self, node: Node) -> str:
        if not node.varies:
            return self._named(self.splats, "all", f"splat({self.scalar(node)})")
        if node.op == "score":
            return "score"
        if node.op == "position":
            return "k"
        if node.op == "load":
            return self._named(self.columns, "x", self._load(node))
        return self._named(self.columns, "x", f"{node.op}({', '.join(self.vector(x) for x in node.args)})")

    def _load(self, node: Node) -> str:
        place, dtype = f"table[{self.places[node.value]}]", self._dtype(node)
        in_a_row = self._in_a_row(node)
        if in_a_row is not None:
            step, rest = in_a_row
            start = self._named(self.row, "start", f"{self._flat(node, last=rest)} + {step} * j")
            return f"contiguous({place}, {start} + {step} * c, {step}, count, {dtype})"
        # Lanes of 32 bits unless the array is so large.
        kind = "int32" if self.graph.arrays[node.value].size < 2**31 else "int64"
        flat = None
        for axis, index in enumerate(node.args):
            lane = self.vector(index) if index.type == kind else f"to_{kind}({self.vector(index)})"
            if flat is None:
                flat = lane
            else:
                size = self._named(self.splats, "all", f"splat(np.{kind}({self._size(node, axis)}))")
                flat = f"add(multiply({flat}, {size}), {lane})"
        return f"gather({place}, {flat}, count, {dtype})"

    def _flat(self, node: Node, last: Node | None = None) -> str:
        """The number of an element among all of its array, by indices that are the same in the whole row."""
        indices = node.args if last is None else (*node.args[:-1], last)
        flat = "np.int64(0)"
        for axis, index in enumerate(indices):
            number = f"np.int64({self.scalar(index)})"
            flat = number if axis == 0 else f"({flat}) * {self._size(node, axis)} + {number}"
        return flat

    def _size(self, node: Node, axis: int) -> str:
        return f"table[{self.places[node.value] + 1 + axis}]"

    def _dtype(self, node: Node) -> str:
        name = self.graph.arrays[node.value].dtype.name
        return "np.bool_" if name == "bool" else f"np.{name}"

    def _named(self, lines: list[str], prefix: str, text: str) -> str:
        name = f"{prefix}{len(lines)}"
        lines.append(f"{name} = {text}")
        return name


def _constant(node: Node) -> str:
    if node.type == "bool":
        return repr(node.value)
    if node.type != FLOAT:
        return f"np.{node.type}({node.value})"
    if math.isfinite(node.value):
        return f"np.float32({node.value!r})"
    return "np.float32(np.nan)" if math.isnan(node.value) else f"np.float32({'' if node.value > 0 else '-'}np.inf)"
