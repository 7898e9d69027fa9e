"""The derivative of a modified score by the score, as one more graph."""

from __future__ import annotations

import math

from .graph import FLOAT, Graph, Node

__all__ = ["NotDerivable", "derivative"]

_STEPS = {"floor", "ceil", "rint", "trunc", "floor_divide", "remainder", "to_int32"}


class NotDerivable(ValueError):
    """The derivative isn't derived; the message names what stands in the way."""


def derivative(graph: Graph, result: Node) -> Node:
    """d result / d score: at a jump or a kink that of one side, as in other libraries.

    Raises NotDerivable where the result is made from the score by rounding, whose derivative of zero nobody means, or
    by sums of integers or truth values.
    """
    known: dict[Node, Node | None] = {graph.score: graph.constant(1.0)}
    found = _derivative(graph, result, known)
    return graph.constant(0.0) if found is None else graph.float32(found)


def _derivative(graph: Graph, node: Node, known: dict) -> Node | None:
    """None stands for zero everywhere. The walk is a stack: graphs may be deep."""
    pending = [node]
    while pending:
        top = pending[-1]
        if top in known:
            pending.pop()
            continue
        missing = [x for x in _derived_args(top) if x not in known]
        if missing:
            pending += missing
        else:
            known[top] = _rule(graph, top, [known[x] for x in _derived_args(top)])
            pending.pop()
    return known[node]


def _derived_args(node: Node) -> tuple[Node, ...]:
    """The arguments with which the node changes smoothly."""
    if node.op in ("load", "less", "less_equal", "equal", "not_equal"):
        return ()
    return node.args[1:] if node.op == "where" else node.args


def _rule(graph: Graph, node: Node, d_args: list[Node | None]) -> Node | None:
    if all(d is None for d in d_args):
        return None
    if node.op in _STEPS or node.type != FLOAT:
        raise NotDerivable(
            f"the gradient of a score that goes through {_NAMES.get(node.op, node.op)} isn't derived (it is zero or "
            "undefined)"
        )
    zero = graph.constant(0.0)
    apply, args = graph.apply, (node.args[1:] if node.op == "where" else node.args)
    x, y = args if len(args) == 2 else (args[0], None)
    dx, dy = d_args if len(args) == 2 else (d_args[0], None)

    def times(d: Node | None, factor: Node) -> Node | None:
        return None if d is None else apply("multiply", d, factor)

    def plus(a: Node | None, b: Node | None) -> Node | None:
        return b if a is None else a if b is None else apply("add", a, b)

    def minus(d: Node | None) -> Node | None:
        return None if d is None else apply("negative", d)

    match node.op:
        case "add":
            return plus(dx, dy)
        case "subtract":
            return plus(dx, minus(dy))
        case "negative":
            return minus(dx)
        case "multiply":
            return plus(times(dx, y), times(dy, x))
        case "divide":
            return plus(
                None if dx is None else apply("divide", dx, y),
                minus(None if dy is None else apply("divide", times(dy, node), y)),
            )
        case "power":
            less = apply("subtract", y, graph.constant(1))
            return plus(
                times(times(dx, y), apply("power", x, less)) if dx is not None else None,
                times(times(dy, node), apply("log", x)) if dy is not None else None,
            )
        case "absolute":
            sign = apply("where", apply("less", x, zero), graph.constant(-1.0), graph.constant(1.0))
            return times(dx, apply("where", apply("equal", x, zero), zero, sign))
        case "minimum" | "maximum":
            chosen = apply("less_equal", x, y) if node.op == "minimum" else apply("less_equal", y, x)
            return apply("where", chosen, *(zero if d is None else d for d in d_args))
        case "where":
            return apply("where", node.args[0], *(zero if d is None else d for d in d_args))
        case "exp":
            return times(dx, node)
        case "exp2":
            return times(dx, apply("multiply", node, graph.constant(math.log(2))))
        case "log":
            return apply("divide", dx, x)
        case "log2":
            return apply("divide", dx, apply("multiply", x, graph.constant(math.log(2))))
        case "sqrt":
            return apply("divide", dx, apply("multiply", graph.constant(2.0), node))
        case "tanh":
            return times(dx, apply("subtract", graph.constant(1.0), apply("multiply", node, node)))
        case "sin":
            return times(dx, apply("cos", x))
        case "cos":
            return minus(times(dx, apply("sin", x)))
    raise NotDerivable(f"the gradient of {node.op} isn't derived")


_NAMES = {
    "floor_divide": "`//`",
    "remainder": "`%`",
    "to_int32": "int()",
    "rint": "rounding",
    "to_float32": "a comparison or an integer",
}
