"""`compiled`: what the attention kernels call of a user's score_mod and mask_mod."""

from __future__ import annotations

import textwrap
import weakref
from collections.abc import Callable
from functools import cached_property
from types import FunctionType

import numpy as np

from ..contract import MASKS_ONLY, NO_GRADIENT, TABLE
from . import bounds, emit
from .derivative import NotDerivable, derivative
from .given_gradient import check_gradient
from .graph import LARGEST_POSITION, Graph, Node
from .lines import table_places
from .lower import lowered, order
from .modules import module_of
from .score_mod import ScoreMod
from .trace import trace

__all__ = ["CompiledMod", "compiled", "score_derivative"]

SCORE_MOD, MASK_MOD = ("score", "b", "h", "q", "k"), ("b", "h", "q", "k")


class CompiledMod:
    """A modifier as machine code, by address.

        modify(scratch, offset, width, b, h, t, j, masked, table)
        modify_gradient(scratch, scores, gradients, width, b, h, t, j, table)

    `modify` changes in place the scores scratch[offset : offset + width], in units of ln 2, of query t of head h in
    batch row b with the keys from j on; where `masked` is False, the mask is known to hide nothing. `modify_gradient`
    changes in place the loss's gradients by modified scores, from `gradients` on, into those by the scores, from
    `scores` on, that `modify` was given. Rows are read in whole vectors of eight: scratch must reach to the next
    multiple of eight after `width`, and what is beyond `width` is left as it is.

    `table`, 64 integers, holds the addresses of the arrays in `keep`, which must stay alive; what is written to the
    arrays takes effect. Its last is 1 if there is a mask alone, so that `modify` need not be called where `masked` is
    False; the one before it is 1 if `modify_gradient` changes nothing. `source` is the compiled text.
    """

    def __init__(self, programs: _Programs, sizes: dict[str, int]):
        self._programs = programs
        graph = programs.graph
        score = None if programs.score is None else lowered(graph, [graph.float32(programs.score)], sizes)[0]
        mask = None if programs.mask is None else lowered(graph, [programs.mask], sizes)[0]
        self._sizes = sizes
        self.source = emit.HEADER.format(source=programs.source) + emit.modify_text(graph, score, mask)
        self.keep = tuple(graph.arrays)
        self.table = np.zeros(TABLE, np.int64)
        for array, place in zip(graph.arrays, table_places(graph)):
            self.table[place : place + 1 + array.ndim] = (array.ctypes.data, *array.shape)
        self.table[MASKS_ONLY] = score is None
        self.table[NO_GRADIENT] = score is None

    @property
    def uses(self) -> frozenset[str]:
        """Which of b, h, q and k the modifier depends on."""
        roots = [x for x in (self._programs.score, self._programs.mask) if x is not None]
        return frozenset(node.value for node in order(roots) if node.op == "position")

    @cached_property
    def modify_address(self) -> int:
        from ...launch import address_of
        from ..tables import MODIFY_TYPES

        return address_of(module_of(self.source).modify, MODIFY_TYPES)

    @cached_property
    def gradient_address(self) -> int:
        """ValueError if the derivative can't be derived and none was given. Asked for, it completes the table."""
        self.table[NO_GRADIENT] = self.gradient_is_identity
        from ...launch import address_of
        from ..tables import GRADIENT_TYPES

        return address_of(module_of(self.gradient_source).modify_gradient, GRADIENT_TYPES)

    @cached_property
    def gradient_source(self) -> str:
        factor = lowered(self._programs.graph, [self._programs.factor], self._sizes)[0]
        return emit.HEADER.format(source=self._programs.source) + emit.gradient_text(self._programs.graph, factor)

    @property
    def gradient_is_identity(self) -> bool:
        """Whether `modify_gradient` changes nothing, so that it need not be called."""
        return self._programs.factor.is_constant and self._programs.factor.value == 1


class _Programs:
    """The graphs of a score_mod, its given gradient and a mask_mod; and what is compiled of them, by sizes."""

    def __init__(self, score_mod, gradient, mask_mod):
        self.graph = Graph()
        self.traces = [
            None if function is None else trace(function, parameters, self.graph)
            for function, parameters in ((score_mod, SCORE_MOD), (gradient, SCORE_MOD), (mask_mod, MASK_MOD))
        ]
        self.score, self.given_factor, mask = (None if found is None else found.node for found in self.traces)
        for found in self.traces[:2]:
            if found is not None and found.node.type == "bool":
                raise TypeError(
                    f"{found.name} returns a truth value; a score_mod returns the changed score, and its gradient a "
                    "number: a function that says which keys are seen is a mask_mod"
                )
        self.mask = None if mask is None else self.graph.truth(mask)
        self.compiled: dict[tuple, CompiledMod] = {}

    @property
    def source(self) -> str:
        return "\n\n".join(textwrap.indent(found.text, "    ") for found in self.traces if found is not None)

    @cached_property
    def factor(self) -> Node:
        """d modified score / d score."""
        if self.score is None or self.given_factor is not None:
            return self.graph.float32(self.given_factor or self.graph.constant(1.0))
        try:
            return derivative(self.graph, self.graph.float32(self.score))
        except NotDerivable as error:
            raise NotDerivable(
                f"{self.traces[0].name}: {error}; give it: ScoreMod(score_mod, gradient=function), the function of "
                "(score, b, h, q, k) returning d score_mod / d score"
            ) from None

    def check_indices(self, sizes: dict[str, int]) -> None:
        """IndexError if a load certainly leaves its array."""
        for node in order([x for x in (self.score, self.mask) if x is not None]):
            if node.op == "load" and node in self.graph.unconditional:
                problem = bounds.problem(node, self.graph.arrays[node.value].shape, sizes)
                if problem is not None:
                    names = " and ".join(found.name for found in self.traces if found is not None)
                    raise IndexError(f"{names}: {problem}, with (B, H, T, S) = {tuple(sizes.values())}")

    def is_current(self) -> bool:
        return all(found is None or found.is_current() for found in self.traces)


# As long as the functions live.
_known: dict[tuple, _Programs] = {}


def compiled(
    score_mod: Callable | None = None, mask_mod: Callable | None = None, *, shape: tuple[int, int, int, int]
) -> CompiledMod:
    """`score_mod(score, b, h, q, k)`, then -inf where `mask_mod(b, h, q, k)` is False, compiled for rows of scores.

    Both are plain Python functions, or a `ScoreMod` the first; either may be None. `shape` is (B, H, T, S): what an
    index into an array may come to follows from it. What was compiled is kept, in this process and on disk. Arrays
    that a function uses are read in place; numbers are compiled in, and a change of them is seen.

    Raises ValueError where a function uses what can't be compiled, naming it; TypeError for arguments or arrays that
    don't fit; IndexError where an index certainly leaves its array.

    >>> found = compiled(lambda score, b, h, q, k: 2 * score, shape=(1, 1, 8, 8))
    >>> "multiply" in found.source, found.table.shape
    (True, (64,))
    """
    shape = tuple(int(size) for size in shape)
    if len(shape) != 4 or max(shape) > LARGEST_POSITION:
        raise ValueError(f"shape is {shape}; expected (B, H, T, S), none of them beyond {LARGEST_POSITION}")
    programs = _programs(score_mod, mask_mod)
    if shape not in programs.compiled:
        sizes = dict(zip("bhqk", shape))
        programs.check_indices(sizes)
        if isinstance(score_mod, ScoreMod) and score_mod.gradient is not None:
            check_gradient(score_mod.function, score_mod.gradient, shape)
        programs.compiled[shape] = CompiledMod(programs, sizes)
    return programs.compiled[shape]


def score_derivative(score_mod: Callable, shape: tuple[int, int, int, int]) -> tuple[Graph, Node]:
    """d score_mod / d score as a graph, with indices that are safe for these sizes."""
    programs = _programs(score_mod, None)
    return programs.graph, lowered(programs.graph, [programs.factor], dict(zip("bhqk", shape)))[0]


def _programs(score_mod, mask_mod) -> _Programs:
    gradient = None
    if isinstance(score_mod, ScoreMod):
        score_mod, gradient = score_mod.function, score_mod.gradient
    functions = (score_mod, gradient, mask_mod)
    if not all(x is None or isinstance(x, FunctionType) for x in functions):
        return _Programs(*functions)  # a method or a partial, made anew each time it is named
    key = tuple(None if x is None else weakref.ref(x) for x in functions)
    found = _known.get(key)
    if found is None:
        for function in functions:
            if function is not None:
                weakref.finalize(function, _known.pop, key, None).atexit = False
    if found is None or not found.is_current():
        found = _known[key] = _Programs(*functions)
    return found
