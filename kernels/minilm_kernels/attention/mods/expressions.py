"""The expressions of a user's function, on symbols and on plain values."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from .arrays import Elements, checked_array
from .functions import BINARY, COMPARE, FUNCTIONS, UNARY
from .graph import Graph, Node
from .source import Definition, definition_of, is_plain_function

__all__ = ["Expressions", "Shared", "is_number"]

_CAN_BE_USED = (
    "a modifier is made of assignments, if/else, return, for over what is known beforehand, arithmetic, comparisons, "
    "elements of NumPy arrays, functions of math and numpy such as exp, tanh, where and minimum, and other functions "
    "made of these"
)
_DEPTH = 40


@dataclass
class Shared:
    """What the functions that call one another share."""

    graph: Graph
    looked_up: list[tuple[Callable[[], object], object]] = field(default_factory=list)
    conditions: int = 0  # how many symbols' sides are being followed


class Expressions:
    """Those of one call of one function."""

    def __init__(self, call: Shared, definition: Definition, depth: int):
        self.shared, self.graph, self.definition, self.depth = call, call.graph, definition, depth
        if depth > _DEPTH:
            raise ValueError(f"{definition.where()} calls itself, or calls go {depth} deep; {_CAN_BE_USED}")

    def refuse(self, node: ast.AST, what: str) -> ValueError:
        return ValueError(f"{self.definition.where(node)}: {what} can't be compiled; {_CAN_BE_USED}")

    def condition(self, node: ast.expr, variables: dict):
        value = self.value(node, variables)
        return self.node(node, value) if isinstance(value, Elements) else value

    def value(self, node: ast.expr, variables: dict):
        """What an expression is: a Node, the Elements of an array, or a Python value."""
        value = lambda part: self.value(part, variables)
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return variables[node.id] if node.id in variables else self.outside(node)
            case ast.Tuple() | ast.List():
                return tuple(value(part) for part in node.elts)
            case ast.BinOp():
                return self.operation(node, BINARY.get(type(node.op)), value(node.left), value(node.right))
            case ast.UnaryOp():
                return self.operation(node, UNARY[type(node.op)], value(node.operand))
            case ast.Compare():
                terms = [value(part) for part in (node.left, *node.comparators)]
                pairs = zip(node.ops, terms[:-1], terms[1:])
                return self.all(node, [self.compare(node, op, x, y) for op, x, y in pairs])
            case ast.BoolOp():
                return self.logical(node, variables)
            case ast.IfExp():
                condition = self.condition(node.test, variables)
                if not isinstance(condition, Node):
                    return value(node.body if condition else node.orelse)
                with self.one_side():
                    sides = value(node.body), value(node.orelse)
                return self.select(node, condition, *sides)
            case ast.Attribute():
                return self.attribute(node, value(node.value))
            case ast.Subscript():
                return self.subscript(node, value(node.value), value(node.slice))
            case ast.Call():
                return self.call(node, variables)
            case _:
                raise self.refuse(node, f"`{ast.unparse(node)}`")

    def operation(self, node: ast.AST, operation, *args):
        if operation is None:
            raise self.refuse(node, f"`{ast.unparse(node)}`")
        try:
            if not any(isinstance(x, (Node, Elements)) for x in args):
                return operation.plain(*args)
            return operation.symbolic(self.graph, *(self.node(node, x) for x in args))
        except (TypeError, ArithmeticError, OverflowError) as error:
            raise type(error)(f"{self.definition.where(node)}: {error}, in `{ast.unparse(node)}`") from None

    def compare(self, node: ast.Compare, op: ast.cmpop, x, y):
        if isinstance(op, (ast.Is, ast.IsNot)):
            return (x is y) == isinstance(op, ast.Is)
        return self.operation(node, COMPARE.get(type(op)), x, y)

    def node(self, where: ast.AST, value) -> Node:
        """A value as a node."""
        if isinstance(value, Node):
            return value
        if isinstance(value, Elements):
            return value.load(self.graph, self.definition.where(where))
        if is_number(value):
            return self.graph.constant(value)
        raise self.refuse(
            where, f"`{ast.unparse(where).splitlines()[0]}`, where a {type(value).__name__} is computed with,"
        )

    def all(self, node: ast.AST, terms: list, op: str = "bitwise_and"):
        if not any(isinstance(x, Node) for x in terms):
            return all(terms) if op == "bitwise_and" else any(terms)
        result, *rest = [self.graph.truth(self.node(node, x)) for x in terms]
        for term in rest:
            result = self.graph.apply(op, result, term)
        return result

    def logical(self, node: ast.BoolOp, variables: dict):
        """and, or: of symbols all are computed; a plain value that decides ends it, as in Python."""
        is_and, symbols, last = isinstance(node.op, ast.And), [], None
        for part in node.values:
            with self.one_side() if symbols else nullcontext():
                last = self.value(part, variables)
            if isinstance(last, (Node, Elements)):
                last = self.node(part, last)
                if last.type != "bool":
                    raise self.refuse(part, f"`{ast.unparse(part)}`, a number where and/or wants a comparison,")
                symbols.append(last)
            elif bool(last) != is_and:
                if symbols:  # it decides whatever the symbols are
                    return not is_and
                return last
        return self.all(node, symbols, "bitwise_and" if is_and else "bitwise_or") if symbols else last

    def outside(self, node: ast.Name):
        try:
            value, ask = self.definition.lookup(node.id)
        except KeyError:
            raise ValueError(
                f"{self.definition.where(node)}: the name {node.id!r} has no value (a variable set on one side of an "
                "if alone has none after it)"
            ) from None
        return self.seen(node, value, ask)

    def seen(self, node: ast.AST, value, ask: Callable[[], object] | None):
        """A value from outside the function, noted so that a change of it is seen."""
        if not isinstance(value, ModuleType) and ask is not None:
            self.shared.looked_up.append((ask, value))
        if isinstance(value, np.ndarray):
            return Elements(checked_array(value, f"{self.definition.where(node)}: {ast.unparse(node)}"))
        return value.item() if isinstance(value, np.generic) else value

    def given(self, node: ast.AST, arguments: dict) -> dict:
        """A call's arguments, arrays and NumPy's numbers among them (default values, what a partial binds)."""
        plain = (np.ndarray, np.generic)
        return {name: self.seen(node, x, None) if isinstance(x, plain) else x for name, x in arguments.items()}

    def attribute(self, node: ast.Attribute, holder):
        if isinstance(holder, Node):
            raise self.refuse(node, f"`{ast.unparse(node)}`")
        if isinstance(holder, Elements):
            if node.attr in ("shape", "ndim", "size"):
                return getattr(holder, node.attr)
            raise self.refuse(node, f"`.{node.attr}` of an array")
        try:
            value = getattr(holder, node.attr)
        except AttributeError as error:
            raise ValueError(f"{self.definition.where(node)}: {error}") from None
        if isinstance(holder, ModuleType) and not isinstance(value, (int, float, np.ndarray)):
            return value
        return self.seen(node, value, lambda: getattr(holder, node.attr, None))

    def subscript(self, node: ast.Subscript, holder, index):
        if isinstance(holder, Elements):
            parts = index if isinstance(index, tuple) else (index,)
            indices = [self.node(node.slice, part) for part in parts]
            found = holder.at(self.graph, indices, f"{self.definition.where(node)}: `{ast.unparse(node)}`")
            if isinstance(found, Node) and not self.shared.conditions:
                self.graph.unconditional.add(found)
            return found
        if hasattr(holder, "requires_grad"):  # a Tensor's, or another library's
            raise ValueError(
                f"{self.definition.where(node)}: `{ast.unparse(node)}` is an element of a tensor, and no gradient goes "
                "through a modifier to what it reads; let it read the tensor's array if that is meant, and give a bias "
                "that is learnt as attn_mask"
            )
        if isinstance(holder, Node) or isinstance(index, (Node, Elements)):
            raise self.refuse(node, f"`{ast.unparse(node)}`, not an element of a NumPy array,")
        try:
            value = holder[index]
        except (LookupError, TypeError) as error:
            raise ValueError(f"{self.definition.where(node)}: {error!r} in `{ast.unparse(node)}`") from None
        return self.seen(node, value, lambda: holder[index] if _has(holder, index) else None)

    def call(self, node: ast.Call, variables: dict):
        function = self.value(node.func, variables)
        if any(isinstance(part, ast.Starred) for part in node.args) or any(part.arg is None for part in node.keywords):
            raise self.refuse(node, f"`{ast.unparse(node)}`, with * or **,")
        args = [self.value(part, variables) for part in node.args]
        by_name = {part.arg: self.value(part.value, variables) for part in node.keywords}
        known = FUNCTIONS.get(function) if _is_hashable(function) else None
        if known is not None:
            if by_name:
                raise self.refuse(node, f"`{ast.unparse(node)}`, with arguments by name,")
            if function is len and isinstance(args[0], Elements):
                return args[0].shape[0]
            return self.operation(node, known, *args)
        if not isinstance(function, type) and hasattr(function, "composition"):  # an operation of `minilm.ops`
            name = ast.unparse(node.func)
            raise ValueError(
                f"{self.definition.where(node)}: `{name}` is an operation on tensors, and a modifier is made of "
                f"functions of numbers: use math's or NumPy's, np.{name.split('.')[-1]} say; their gradient is found"
            )
        if not is_plain_function(function):
            raise self.refuse(node, f"`{ast.unparse(node.func)}`")
        definition = definition_of(function)
        try:
            inner = definition.arguments(args, by_name)
        except TypeError as error:
            raise TypeError(f"{self.definition.where(node)}: {error}, in `{ast.unparse(node)}`") from None
        inner = self.given(node, inner)
        return type(self)(self.shared, definition, self.depth + 1).body(definition.body, inner)

    @contextmanager
    def one_side(self):
        self.shared.conditions += 1
        yield
        self.shared.conditions -= 1

    def select(self, node: ast.AST, condition, yes, no):
        return self.graph.apply("where", self.node(node, condition), self.node(node, yes), self.node(node, no))


def is_number(value) -> bool:
    return isinstance(value, (bool, int, float, np.generic))


def _is_hashable(value) -> bool:
    return getattr(type(value), "__hash__", None) is not None


def _has(holder, index) -> bool:
    try:
        holder[index]
    except (LookupError, TypeError):
        return False
    return True
