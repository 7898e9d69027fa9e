"""`BlockMask`: which blocks a mask hides, so that attention skips them, and which it leaves whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ..contract import BLOCK, EMPTY, FULL, PARTIAL
from .compiled import compiled
from .dense import dense_mask

__all__ = ["BlockMask", "and_masks", "block_mask", "check_block_mask", "or_masks"]


class BlockMask:
    """A mask_mod and, for each block of 48 queries by 48 keys, whether it is empty (0), partial (1) or full (2).

    `states` is uint8 (B or 1, H or 1, ceil(T / 48), ceil(S / 48)); `shape` is (B, H, T, S) as given to `block_mask`,
    None where the mask is the same for all batch rows or heads. The states are those of the arrays that `mask_mod` uses
    as they were when it was made: after a change to them, make it anew.
    """

    def __init__(self, mask_mod: Callable, states: np.ndarray, shape: tuple):
        self.mask_mod, self.states, self.shape = mask_mod, states, shape

    def sparsity(self) -> float:
        """The share of blocks that are skipped, from 0 to 1."""
        return float(np.mean(self.states == EMPTY)) if self.states.size else 0.0

    def dense(self) -> np.ndarray:
        """The mask as booleans (B or 1, H or 1, T, S), True where a key is seen: for tests, and small."""
        B, H, T, S = self.shape
        return dense_mask(self.mask_mod, B or 1, H or 1, T, S)

    def check_fits(self, B: int, H: int, T: int, S: int) -> None:
        """ValueError unless the mask is one for attention of these sizes."""
        fits = all(mine is None or mine == size for mine, size in zip(self.shape, (B, H, T, S)))
        if not fits:
            raise ValueError(
                f"the block mask is for (B, H, T, S) = {self.shape}, and attention has {(B, H, T, S)}; make it with "
                f"block_mask(mask_mod, {B}, {H}, {T}, {S}), or None where it is the same for all batch rows or heads"
            )

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{int(np.sum(self.states == state))} {name}"
            for state, name in ((FULL, "full"), (PARTIAL, "partial"), (EMPTY, "empty"))
        )
        name = getattr(self.mask_mod, "__name__", "mask_mod")
        return (
            f"BlockMask({name}, (B, H, T, S)={self.shape}, blocks of {BLOCK}: {counts}; {self.sparsity():.0%} skipped)"
        )

    def __str__(self) -> str:
        """The first head's blocks as a picture: `█` full, `░` partial, `·` empty."""
        rows = self.states[0, 0] if self.states.size else np.zeros((0, 0), np.uint8)
        step = max(1, -(-max(rows.shape) // 64))
        picture = "\n".join("".join("·░█"[state] for state in row[::step]) for row in rows[::step])
        return f"{self!r}\n{picture}"


def block_mask(mask_mod: Callable, B: int | None, H: int | None, T: int, S: int) -> BlockMask:
    """Evaluates `mask_mod(b, h, q, k)` everywhere, compiled and on all threads, and keeps a byte for each block.

        state = 0 if no pair of its queries and keys is seen, 2 if all are, else 1

    `mask_mod` is a plain function of integers returning whether query q of head h in batch row b sees key k. B or H is
    None where it is the same for all of them; then it must not use b, or h. Takes memory for the states alone, and
    about a nanosecond for each (b, h, q, k).

    Raises ValueError for sizes that don't fit or a function that can't be compiled, IndexError where it reads beyond
    an array (Dong et al. 2024, FlexAttention, arXiv:2412.05496).

    >>> mask = block_mask(lambda b, h, q, k: k <= q, None, None, 96, 96)
    >>> mask.states[0, 0].tolist(), mask.sparsity()
    ([[1, 0], [2, 1]], 0.25)
    """
    shape = tuple(
        None if x is None and i < 2 else _size(name, x) for i, (name, x) in enumerate(zip("BHTS", (B, H, T, S)))
    )
    sizes = tuple(1 if size is None else size for size in shape)
    found = compiled(None, mask_mod, shape=sizes)
    for position, name, size in (("b", "B", B), ("h", "H", H)):
        if size is None and position in found.uses:
            raise ValueError(f"the mask depends on {position}, and {name} is None; give block_mask the number {name}")
    states = np.empty((*sizes[:2], -(-sizes[2] // BLOCK), -(-sizes[3] // BLOCK)), np.uint8)
    if states.size:
        from ...chunks import parts_for

        rows = states.reshape(-1, states.shape[3])
        _sweep()(parts_for(rows.size * BLOCK**2), found.modify_address, found.table, rows, *sizes[1:])
    return BlockMask(mask_mod, states, shape)


def check_block_mask(block_mask: BlockMask | None, B: int, H: int, T: int, S: int) -> None:
    """TypeError unless it is a `BlockMask` or None, ValueError unless it is one for attention of these sizes."""
    if block_mask is None:
        return
    if not isinstance(block_mask, BlockMask):
        raise TypeError(
            f"block_mask is {block_mask!r}; expected what block_mask(mask_mod, B, H, T, S) of "
            "minilm_kernels.attention.mods makes of a function of (b, h, q, k)"
        )
    block_mask.check_fits(B, H, T, S)


def _size(name: str, size) -> int:
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{name} is {size!r}; expected a whole number of 0 or more" + (" or None" * (name in "BH")))
    return int(size)


@cache
def _sweep():
    from .sweep import sweep

    return sweep


def and_masks(*mask_mods: Callable) -> Callable:
    """A mask_mod that sees what all of these see.

    >>> seen = and_masks(lambda b, h, q, k: k <= q, lambda b, h, q, k: q - k < 2)
    >>> [bool(seen(0, 0, 5, k)) for k in (3, 4, 5, 6)]
    [False, True, True, False]
    """
    first, *others = _some(mask_mods)

    def all_of_them(b, h, q, k):
        seen = first(b, h, q, k)
        for mask_mod in others:
            seen = np.logical_and(seen, mask_mod(b, h, q, k))
        return seen

    return all_of_them


def or_masks(*mask_mods: Callable) -> Callable:
    """A mask_mod that sees what any of these sees.

    >>> seen = or_masks(lambda b, h, q, k: k == q, lambda b, h, q, k: k < 1)
    >>> [bool(seen(0, 0, 2, k)) for k in (0, 1, 2, 3)]
    [True, False, True, False]
    """
    first, *others = _some(mask_mods)

    def any_of_them(b, h, q, k):
        seen = first(b, h, q, k)
        for mask_mod in others:
            seen = np.logical_or(seen, mask_mod(b, h, q, k))
        return seen

    return any_of_them


def _some(mask_mods: tuple) -> tuple:
    for mask_mod in mask_mods:
        if not callable(mask_mod):
            raise TypeError(f"{mask_mod!r} is not a mask_mod; expected functions of (b, h, q, k)")
    if not mask_mods:
        raise ValueError("no masks were given; expected one function of (b, h, q, k) or more")
    return mask_mods
