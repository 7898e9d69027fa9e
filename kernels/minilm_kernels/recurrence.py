"""What the kernels of recurrent layers share: who computes what of a step, and the weights as their products read them.

A step is one launch. Its tasks are COLUMNS features by at most BLOCK rows of the batch: the sums at all gates of these
features, a product with the whole state, and the cell, whose own state only this task needs. So a thread reads the same
part of the weights step after step, from its own cache. Rows are padded to whole tiles, features to whole tasks; what
lies in the padding never gets into a result.
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .simd import LANES, load, store
from .tile_product import COLUMNS, ROWS, multiply_tile

__all__ = ["BLOCK", "COLUMNS", "LEAST_STEPS", "PADDED", "Tasks", "add_product", "flat", "move", "refusal", "rows_of"]

BLOCK = 8 * ROWS  # what is between a product and a cell then stays in the first cache level
PADDED = COLUMNS * BLOCK  # numbers of one gate in a task's scratch
LEAST_STEPS = 8  # below them packing the weights takes longer than it saves
_SERIAL_BELOW = 2**19  # multiply-adds of a step that one thread does before a second one is awake


class Tasks:
    """The tasks of a step for B rows of C features with so many gates."""

    def __init__(self, B: int, C: int, gates: int) -> None:
        self.B, self.C, self.gates = B, C, gates
        self.units, self.blocks = -(-C // COLUMNS), -(-B // BLOCK)
        self.rows = -(-B // ROWS) * ROWS
        self.count = self.units * self.blocks
        self.parts = self.count if B * C * C * gates >= _SERIAL_BELOW else 1

    def columns_to_gates(self, weight) -> np.ndarray:
        """(units, gates, C, COLUMNS): of a weight (gates C, C), what the state is multiplied with."""
        padded = np.zeros((self.gates, self.units * COLUMNS, self.C), np.float32)
        padded[:, : self.C] = weight.reshape(self.gates, self.C, self.C)
        parts = padded.reshape(self.gates, self.units, COLUMNS, self.C)
        return np.ascontiguousarray(parts.transpose(1, 0, 3, 2)).reshape(-1)

    def columns_to_state(self, weight) -> np.ndarray:
        """(units, gates, C, COLUMNS): what the gates' gradients are multiplied with."""
        padded = np.zeros((self.gates, self.C, self.units * COLUMNS), np.float32)
        padded[:, :, : self.C] = weight.reshape(self.gates, self.C, self.C)
        parts = padded.reshape(self.gates, self.C, self.units, COLUMNS)
        return np.ascontiguousarray(parts.transpose(2, 0, 1, 3)).reshape(-1)

    def by_unit(self, x=None) -> np.ndarray:
        """x (B, C), or zeros, as (units, rows, COLUMNS), flat: a task's part of it lies in one piece."""
        padded = np.zeros((self.rows, self.units * COLUMNS), np.float32)
        if x is not None:
            padded[: self.B, : self.C] = x
        return np.ascontiguousarray(padded.reshape(self.rows, self.units, COLUMNS).swapaxes(0, 1)).reshape(-1)

    def two_of(self, width: int) -> np.ndarray:
        """Room for two steps' (rows, width), flat: one is read while the other is written."""
        return np.zeros(2 * self.rows * width, np.float32)


def refusal(steps: int, rows: int, weight) -> str | None:
    """Why a kernel does not take so many steps of so many rows, or such a weight; None if it does."""
    if steps < LEAST_STEPS:
        return f"it packs the weights first, which pays from {LEAST_STEPS} steps on"
    if rows < 2:
        return "it multiplies several rows at a time; BLAS is faster with one"
    return None if weight.dtype == np.float32 else "it takes weights in float32"


def flat(array) -> np.ndarray:
    """The array in one row, copied if need be."""
    return np.ascontiguousarray(array).reshape(-1)


@jit(inline=True)
def rows_of(block, B):
    """First row and number of rows of a block."""
    return block * BLOCK, min(BLOCK, B - block * BLOCK)


@jit(inline=True)
def move(target, at_target, source, at_source, width):
    """Copies `width` numbers, COLUMNS or less."""
    if width == COLUMNS:
        for k in range(0, COLUMNS, LANES):
            store(target, at_target + k, load(source, at_source + k))
    else:
        for k in range(width):
            target[at_target + k] = source[at_source + k]


@jit(inline=True)
def add_product(scratch, at, n_rows, a, at_a, a_row, panel, at_panel, depth):
    """Adds the product of `n_rows` rows of `depth` numbers and a panel to rows of COLUMNS numbers."""
    for row in range(0, n_rows, ROWS):
        multiply_tile(
            scratch, at + row * COLUMNS, COLUMNS, a, at_a + row * a_row, a_row, 1, panel, at_panel, COLUMNS, depth, True
        )
