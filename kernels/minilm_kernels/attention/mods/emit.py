"""From graphs to a module's text: for each row what is the same in all columns, then a loop over eight at a time."""

from __future__ import annotations

import math

from .graph import Graph, Node
from .lines import Lines

__all__ = ["HEADER", "gradient_text", "modify_text"]

HEADER = '''"""Made by minilm_kernels.attention.mods from this, which it replaces in the loops of the attention kernels:

{source}
"""

import math

import numpy as np

from minilm_kernels.attention.mods.lane_memory import *
from minilm_kernels.attention.mods.lanes import *
from minilm_kernels.jit import jit
'''

_MODIFY = '''

@jit
def modify(scratch, offset, width, b, h, t, j, masked, table):
    """A row of scores in units of ln 2: scratch[offset + c] is that of query t with key j + c."""
'''
_GRADIENT = '''

@jit
def modify_gradient(scratch, scores, gradients, width, b, h, t, j, table):
    """A row of gradients by modified scores becomes one by the scores that `modify` was given."""
'''
_LOOP = """for c in range(0, width, 8):
    count = min(width - c, 8)"""


def modify_text(graph: Graph, score: Node | None, mask: Node | None) -> str:
    """The function that changes a row of scores: `score` is what each becomes, -inf where `mask` is False."""
    plain = [] if score is None else _loop(graph, score, None)
    if mask is None:
        return _MODIFY + _indented(plain, 1)
    text = _MODIFY + _indented(["if masked:"], 1) + _indented(_loop(graph, score, mask), 2)
    return text + (_indented(["else:"], 1) + _indented(plain, 2) if plain else "")


def gradient_text(graph: Graph, factor: Node) -> str:
    """The function that multiplies a row of gradients by `factor`; a gradient of zero stays that, whatever it is."""
    if factor.is_constant and factor.value == 1:
        return _GRADIENT + _indented(["pass"], 1)
    lines = Lines(graph, [factor])
    loop = [
        *_LOOP.splitlines(),
        *_loop_start(lines, "scores"),
        "    given = load(scratch, gradients + c)",
        *(f"    {line}" for line in lines.columns),
        f"    result = multiply(given, {lines.vector(factor)})",
        "    result = where(equal(given, nothing), given, result)",
        "    store_first(scratch, gradients + c, result, count)",
    ]
    return _GRADIENT + _indented([*lines.row, *lines.splats, "nothing = splat(np.float32(0.0))", *loop], 1)


def _loop(graph: Graph, score: Node | None, mask: Node | None) -> list[str]:
    lines = Lines(graph, [x for x in (score, mask) if x is not None])
    result = "given" if score is None else f"multiply({lines.vector(score)}, splat(np.float32({1 / math.log(2)!r})))"
    masked = [] if mask is None else [f"    result = where({lines.vector(mask)}, result, splat(np.float32(-np.inf)))"]
    loop = [
        *_LOOP.splitlines(),
        "    given = load(scratch, offset + c)",
        *_loop_start(lines, None),
        *(f"    {line}" for line in lines.columns),
        f"    result = {result}",
        *masked,
        "    store_first(scratch, offset + c, result, count)",
    ]
    return [*lines.row, *lines.splats, *loop]


def _loop_start(lines: Lines, score: str | None) -> list[str]:
    start = []
    if lines.uses("score"):
        given = "given" if score is None else f"load(scratch, {score} + c)"
        start.append(f"    score = multiply({given}, splat(np.float32({math.log(2)!r})))")
    if lines.uses("position"):
        start.append("    k = columns(j + c)")
    return start


def _indented(lines: list[str], depth: int) -> str:
    return "".join(f"{'    ' * depth}{line}\n" for line in lines)
