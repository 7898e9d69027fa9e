"""How large an index into an array may get, for given sizes: what can't leave the array needs no check in the loop."""

from __future__ import annotations

from .graph import Node

__all__ = ["interval", "problem"]


def interval(node: Node, sizes: dict[str, int]) -> tuple[int, int, bool]:
    """The least and the largest value of an integer node when b, h, q and k count to `sizes`; and whether both occur.

    An element of an array may be anything that its dtype holds, for arrays are changed in place.
    """
    if node.op == "constant":
        return int(node.value), int(node.value), True
    if node.op == "position":
        return 0, max(sizes[node.value] - 1, 0), True
    known = [interval(x, sizes) for x in node.args if x.type in ("int32", "int64")]
    if len(known) == len(node.args):
        lows, highs = [low for low, _, _ in known], [high for _, high, _ in known]
        # Both ends occur if each argument's do, and no two depend on the same position.
        occur = all(exact for _, _, exact in known) and _are_independent(node.args)
        match node.op:
            case "add":
                return sum(lows), sum(highs), occur
            case "subtract":
                return lows[0] - highs[1], highs[0] - lows[1], occur
            case "negative":
                return -highs[0], -lows[0], occur
            case "minimum":
                return min(lows), min(highs), occur
            case "maximum":
                return max(lows), max(highs), occur
            case "multiply":
                corners = [x * y for x in (lows[0], highs[0]) for y in (lows[1], highs[1])]
                return min(corners), max(corners), occur
            case "absolute":
                low, high = lows[0], highs[0]
                return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high)), occur
            case "remainder" if lows[1] == highs[1] > 0:
                return 0, lows[1] - 1, False
            case "floor_divide" if lows[1] == highs[1] > 0:
                return lows[0] // lows[1], highs[0] // lows[1], occur
            case "to_int64":
                return lows[0], highs[0], occur
    if node.op == "where" and len(known) == 2:
        return min(known[0][0], known[1][0]), max(known[0][1], known[1][1]), False
    return -node.bound, node.bound, False


def _are_independent(nodes: tuple[Node, ...]) -> bool:
    met: set[Node] = set()
    for node in nodes:
        positions = _positions(node)
        if positions & met:
            return False
        met |= positions
    return True


def _positions(node: Node) -> set[Node]:
    if node.op == "position":
        return {node}
    return set().union(*(_positions(x) for x in node.args)) if node.args else set()


def problem(node: Node, shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """Why a load certainly leaves its array, if it does; None if it doesn't, or might not."""
    for axis, (index, size) in enumerate(zip(node.args, shape)):
        low, high, occur = interval(index, sizes)
        if occur and (high >= size or low < -size):
            return f"index {axis} runs from {low} to {high}, and the array has shape {shape}"
    return None
