"""Indices made safe: what may leave an array is wrapped as Python does it, or kept inside, by nodes of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable

from .bounds import interval
from .graph import Graph, Node

__all__ = ["affine_in_k", "lowered", "order"]


def order(roots: list[Node], needs: Callable[[Node], tuple[Node, ...]] = lambda node: node.args) -> list[Node]:
    """All nodes that the roots are computed from, each after those that it `needs`."""
    done: dict[Node, None] = {}
    pending = list(reversed(roots))
    while pending:
        top = pending[-1]
        missing = [x for x in needs(top) if x not in done]
        if top in done or not missing:
            done.setdefault(top)
            pending.pop()
        else:
            pending += reversed(missing)
    return list(done)


def lowered(graph: Graph, roots: list[Node], sizes: dict[str, int]) -> list[Node]:
    """The roots, computed with loads that stay inside their arrays for any b, h, q and k below `sizes`.

    A negative index counts from the end. One beyond the array gives NaN of a floating-point array, and the nearest
    element of any other; only what is not selected in the end should ever read there.
    """
    new: dict[Node, Node] = {}
    for node in order(roots):
        args = tuple(new[x] for x in node.args)
        if node.op == "load":
            new[node] = _load(graph, node, args, sizes)
        elif (
            node.op in ("minimum", "maximum") and node.type != "float32" and (one := _decided(node, sizes)) is not None
        ):
            new[node] = args[one]
        else:
            new[node] = node if args == node.args else graph.again(node, args)
    return [new[root] for root in roots]


def _decided(node: Node, sizes: dict[str, int]) -> int | None:
    """Which of two integers is always the smaller or the larger, if one is: clipping often changes nothing."""
    (low, high, _), (other_low, other_high, _) = (interval(x, sizes) for x in node.args)
    if node.op == "maximum":
        low, high, other_low, other_high = -high, -low, -other_high, -other_low
    return 0 if high <= other_low else 1 if other_high <= low else None


def _load(graph: Graph, node: Node, indices: tuple[Node, ...], sizes: dict[str, int]) -> Node:
    shape, outside, inside = graph.arrays[node.value].shape, None, []
    for axis, (index, original) in enumerate(zip(indices, node.args)):
        low, high, _ = interval(original, sizes)
        if low < 0:
            size = graph.dimension(node.value, axis)
            wrapped = graph.apply("add", index, size)
            index = graph.apply("where", graph.apply("less", index, graph.constant(0)), wrapped, index)
        if low < -shape[axis] or high >= shape[axis]:
            zero, last = (
                graph.constant(0),
                graph.apply("subtract", graph.dimension(node.value, axis), graph.constant(1)),
            )
            kept = graph.apply("minimum", graph.apply("maximum", index, zero), last)
            is_outside = graph.apply("not_equal", index, kept)
            outside = is_outside if outside is None else graph.apply("bitwise_or", outside, is_outside)
            index = kept
        inside.append(index)
    element = graph.load_from(node.value, tuple(inside))
    if outside is None or element.type != "float32":
        return element
    return graph.apply("where", outside, graph.constant(math.nan), element)


def affine_in_k(graph: Graph, node: Node) -> tuple[int, Node] | None:
    """`step` and `rest` of an integer that is step * k + rest, the rest being the same in the whole row; or None."""
    if not node.varies:
        return 0, node
    if node.op == "position":
        return 1, graph.constant(0)
    if node.op == "to_int64":
        return affine_in_k(graph, node.args[0])
    if node.op not in ("add", "subtract", "negative", "multiply"):
        return None
    parts = [affine_in_k(graph, x) for x in node.args]
    if None in parts:
        return None
    (step, rest), *others = parts
    if node.op == "negative":
        return -step, graph.apply("negative", rest)
    other_step, other_rest = others[0]
    if node.op == "multiply":
        if rest.is_constant and not step:
            factor, step, rest = rest, other_step, other_rest
        elif other_rest.is_constant and not other_step:
            factor = other_rest
        else:
            return None
        return step * factor.value, graph.apply("multiply", rest, factor)
    sign = 1 if node.op == "add" else -1
    return step + sign * other_step, graph.apply(node.op, rest, other_rest)
