"""The tiles of the CUDA attention kernels: what a block holds, for each head size and width of number.

Registers decide: a thread has 255, and the sums of a warp (rows of its tile x head size) stay in them for good, beside
a tile of scores, in the backward pass two. Then shared memory: no block takes more than the 99 KiB that every card
since sm_80 gives, but where two stages are in flight, for which there must be room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["HEAD_SIZES", "Tiles", "tiles"]

HEAD_SIZES = 32, 64, 96, 128, 192, 256


@dataclass(frozen=True)
class Tiles:
    """`m` queries and `n` keys to a tile, `warps` to a block, `stages` of tiles in flight, parts of the head size."""

    m: int
    n: int
    warps: int
    stages: int = 1
    split: int = 1

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def defines(self) -> dict[str, int]:
        """As macros of the sources."""
        sizes = {"BLOCK_M": self.m, "BLOCK_N": self.n, "WARPS": self.warps}
        return sizes | {"STAGES": self.stages, "D_SPLIT": self.split}

    def shared_bytes(self, kernel: str, row_bytes: int) -> int:
        """The dynamic shared memory of a block: what it keeps, and what passes by."""
        kept, passing = {
            "forward": (self.m, 2 * self.n),
            "backward_queries": (2 * self.m, 2 * self.n),
            "backward_keys": (2 * self.n, 2 * self.m),
        }[kernel]
        return (kept + self.stages * passing) * row_bytes


# (m, n, warps), and the parts of the head size where the sums of all columns are too many; by HEAD_SIZES.
_HALF = {
    "forward": [(128, 128, 4), (128, 128, 4), (128, 64, 4), (128, 64, 4), (128, 64, 8), (64, 64, 4)],
    "backward_queries": [(128, 64, 4), (128, 64, 4), (128, 32, 4), (128, 32, 4), (64, 32, 4), (64, 32, 4)],
    "backward_keys": [(64, 128, 4), (32, 128, 4), (64, 128, 8), (64, 128, 8), (64, 64, 4, 2), (32, 64, 4, 2)],
}
_FLOAT = {
    "forward": [(64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 16, 4)],
    "backward_queries": [(64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4), (32, 32, 2), (32, 16, 2)],
    "backward_keys": [(32, 64, 4), (16, 64, 4), (16, 64, 4), (16, 64, 4), (16, 32, 2, 2), (16, 32, 2, 2)],
}
_REGISTERS = 65536  # of a multiprocessor


def tiles(kernel: str, head_size: int, itemsize: int, shared_bytes: int, *, plain: bool = True) -> Tiles:
    """The tiles of a kernel ("forward", "backward_queries", "backward_keys") on a card that gives a block so much.

    Not `plain` are settings that change the scores: they take registers.
    """
    m, n, warps, *split = (_HALF if itemsize == 2 else _FLOAT)[kernel][HEAD_SIZES.index(head_size)]
    chosen = Tiles(m, n, warps, 1, *split)
    if kernel == "forward":
        return chosen if plain else replace(chosen, n=min(n, 64))
    two = replace(chosen, stages=2)
    blocks = _REGISTERS // (256 * chosen.threads)  # that a multiprocessor holds at a time: two stages don't lower it
    return two if blocks * two.shared_bytes(kernel, head_size * itemsize) <= shared_bytes else chosen
