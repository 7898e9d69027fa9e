"""What the attention kernels and those who make block masks and modifiers for them have agreed on."""

from __future__ import annotations

__all__ = ["BLOCK", "EMPTY", "FULL", "MASKS_ONLY", "NO_GRADIENT", "PARTIAL", "TABLE"]

# Queries and keys to a block, of which a block mask has the state: a multiple of a tile's 6 rows and 16 columns.
BLOCK = 48
EMPTY, PARTIAL, FULL = 0, 1, 2

# Integers in a modifier's table, for the addresses, shapes and strides of its arrays. The last two, where they are 1,
# say that it hides keys and changes no score, and that its gradient is the identity: then it need not be called.
TABLE = 64
MASKS_ONLY, NO_GRADIENT = TABLE - 1, TABLE - 2
