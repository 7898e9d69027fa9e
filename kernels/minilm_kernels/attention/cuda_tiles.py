"""The tiles of the CUDA attention kernels: what a block holds, for each head size and width of number.

Registers decide: a thread has 255, and the sums of a warp (rows of its tile x head size) stay in them for good, beside
a tile of scores, in the backward pass two. Then shared memory: the forward pass takes no more than the 99 KiB that
every card since sm_80 gives a block; the backward pass has other tiles for cards that give more.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HEAD_SIZES", "Tiles", "backward_tiles", "forward_tiles"]

HEAD_SIZES = 32, 64, 96, 128, 192, 256


@dataclass(frozen=True)
class Tiles:
    """`m` queries and `n` keys to a tile, `warps` to a block; backward, `stages` of queries in flight."""

    m: int
    n: int
    warps: int
    stages: int = 1

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def defines(self) -> dict[str, int]:
        """As macros of the sources."""
        return {"BLOCK_M": self.m, "BLOCK_N": self.n, "WARPS": self.warps, "STAGES": self.stages}

    def forward_bytes(self, head_size: int, itemsize: int) -> int:
        """The dynamic shared memory of a block of forward.cu: queries, keys and values."""
        return (self.m + 2 * self.n) * head_size * itemsize

    def backward_bytes(self, head_size: int, itemsize: int) -> int:
        """That of backward.cu: keys and values, P and dS, and in each stage queries, g and five numbers a row."""
        kept = 2 * self.n * head_size * itemsize + 2 * self.m * self.n * itemsize
        return kept + self.stages * self.m * (2 * head_size * itemsize + 5 * 4)

    def backward_sums(self, head_size: int, *, plain: bool) -> int:
        """The sums that a thread of backward.cu holds while it computes scores: dk and dv, the scores, their gradient,
        and if not plain the soft cap's derivative."""
        return (2 * self.n * head_size + (2 if plain else 3) * self.m * self.n) // self.threads


# (m, n, warps), by HEAD_SIZES.
_FORWARD = {
    2: [(128, 128, 4), (128, 128, 4), (128, 64, 4), (128, 64, 4), (128, 64, 8), (64, 64, 4)],
    4: [(64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 16, 4)],
}
# (m, n, warps, stages): the first that fits is taken. The last fits everywhere. Where n = 2 m, a causal mask makes the
# next block of a head two query tiles shorter: one tile behind, it still ends before, and those that follow don't wait.
_BACKWARD = {
    2: {
        32: [(64, 128, 8, 2)],
        64: [(64, 128, 8, 2)],
        96: [(64, 128, 8, 2), (64, 64, 8, 2)],
        128: [(64, 128, 8, 2), (64, 64, 8, 2), (64, 64, 8, 1)],
        192: [(64, 64, 8, 2), (32, 64, 8, 1)],
        256: [(64, 64, 8, 2), (64, 64, 8, 1), (32, 32, 4, 1)],
    },
    4: {
        32: [(64, 64, 8, 2)],
        64: [(32, 64, 4, 2)],
        96: [(32, 64, 4, 1)],
        128: [(32, 32, 4, 1)],
        192: [(32, 32, 4, 1), (16, 16, 4, 1)],
        256: [(32, 32, 4, 1), (16, 16, 4, 1)],
    },
}
_SUMS = 192  # with more, there are not enough registers for what else a thread holds


def forward_tiles(head_size: int, itemsize: int, *, plain: bool = True) -> Tiles:
    """The tiles of forward.cu. Not `plain` are settings that change the scores: they take registers."""
    m, n, warps = _FORWARD[itemsize][HEAD_SIZES.index(head_size)]
    return Tiles(m, n if plain else min(n, 64 if head_size <= 64 else 32), warps)


def backward_tiles(head_size: int, itemsize: int, shared_bytes: int, *, plain: bool = True) -> Tiles:
    """The tiles of backward.cu on a card that gives a block so much shared memory."""
    choices = [Tiles(*sizes) for sizes in _BACKWARD[itemsize][head_size]]
    for choice in choices:
        fits = choice.backward_bytes(head_size, itemsize) <= shared_bytes
        if fits and choice.backward_sums(head_size, plain=plain) <= _SUMS:
            return choice
    return choices[-1]
