"""score_mod and mask_mod on whole arrays of scores: what the compiled ones are held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...registry import array_module
from .compiled import score_derivative
from .graph import FLOAT, Graph, Node
from .lower import order

__all__ = ["apply_score_mod", "apply_score_mod_gradient", "dense_mask"]


def apply_score_mod(scores, score_mod: Callable):
    """`score_mod(score, b, h, q, k)` of every element of `scores` (B, H, T, S), in the dtype of `scores`.

    The function is called once with arrays where it takes them, else for each element (NumPy alone, and slow).

    >>> apply_score_mod(np.ones((1, 1, 2, 2), np.float32), lambda score, b, h, q, k: score + k - q)[0, 0]
    array([[1., 2.],
           [0., 1.]], dtype=float32)
    """
    xp = array_module(scores)
    found = _called(xp, score_mod, scores, *_positions(xp, scores.shape))
    return xp.array(xp.broadcast_to(xp.asarray(found), scores.shape), scores.dtype)


def apply_score_mod_gradient(scores, score_mod: Callable):
    """d score_mod(score, b, h, q, k) / d score at every element of `scores` (B, H, T, S), in the dtype of `scores`.

    It is the one that a `ScoreMod` holds, or else is derived; NotDerivable, a ValueError, if that can't be done.

    >>> apply_score_mod_gradient(np.array([[[[1, 2]]]], np.float32), lambda score, b, h, q, k: score * score)[0, 0]
    array([[2., 4.]], dtype=float32)
    """
    xp, positions = array_module(scores), _positions(array_module(scores), scores.shape)
    given = getattr(score_mod, "gradient", None)
    if given is not None:
        found = _called(xp, given, scores, *positions)
    elif scores.size:
        found = _evaluated(xp, *score_derivative(score_mod, scores.shape), scores, dict(zip("bhqk", positions)))
    else:
        found = 1.0
    return xp.array(xp.broadcast_to(xp.asarray(found), scores.shape), scores.dtype)


def dense_mask(mask_mod: Callable, B: int, H: int, T: int, S: int, xp=np):
    """`mask_mod(b, h, q, k)` everywhere: booleans (B, H, T, S), True where the key is seen.

    >>> dense_mask(lambda b, h, q, k: k <= q, 1, 1, 2, 3)[0, 0].astype(int)
    array([[1, 0, 0],
           [1, 1, 0]])
    """
    found = _called(xp, mask_mod, *_positions(xp, (B, H, T, S)))
    return xp.array(xp.broadcast_to(xp.asarray(found), (B, H, T, S)), bool)


def _positions(xp, shape: tuple[int, ...]) -> list:
    """b, h, q and k as arrays that broadcast to `shape`."""
    return [xp.arange(size).reshape([-1 if i == axis else 1 for i in range(4)]) for axis, size in enumerate(shape)]


def _called(xp, function: Callable, *arrays):
    try:
        return function(*arrays)
    except (TypeError, ValueError):  # `if`, `and` and math's functions take one number
        if xp is not np or any(array.size == 0 for array in arrays):
            raise
        places = np.broadcast(*arrays)  # whose numbers keep their dtype; numpy.vectorize makes Python's of them
        return np.array([function(*numbers) for numbers in places], np.float64).reshape(places.shape)


def _evaluated(xp, graph: Graph, root: Node, scores, positions: dict):
    """A graph's value: its operations have NumPy's names."""
    known = {}
    for node in order([root]):
        args = [known[x] for x in node.args]
        if node.op == "constant":
            value = node.value
        elif node.op == "score":
            value = scores
        elif node.op == "position":
            value = positions[node.value]
        elif node.op == "dimension":
            slot, axis = node.value
            value = graph.arrays[slot].shape[axis]
        elif node.op == "load":
            value = xp.asarray(graph.arrays[node.value][tuple(args)])
            value = value.astype(scores.dtype) if node.type == FLOAT else value
        elif node.op.startswith("to_"):
            value = xp.asarray(args[0]).astype(scores.dtype if node.type == FLOAT else node.type)
        else:
            with np.errstate(all="ignore"):
                value = getattr(xp, node.op)(*args)
        known[node] = value
    return known[root]
