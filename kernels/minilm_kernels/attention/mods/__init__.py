"""Attention's scores changed, and its keys masked, by plain Python functions that are compiled into the kernels.

    score_mod(score, b, h, q, k) -> score        mask_mod(b, h, q, k) -> whether query q sees key k

The idea is FlexAttention's (Dong et al. 2024, arXiv:2412.05496). `catalogue` has the known ones; `block_mask` finds the
blocks that a mask empties; `compiled` is what the kernels call. On the way: `source` finds the function, `trace` makes
a graph of it (`graph`, with the `functions` that it knows), `derivative` one of its gradient, `bounds` and `lower` keep
its indices inside their arrays, `emit` writes it as the text of a module in terms of `lanes`, which `modules` keeps.
"""

from ..contract import BLOCK
from . import catalogue
from .block_mask import BlockMask, and_masks, block_mask, check_block_mask, or_masks
from .compiled import CompiledMod, compiled
from .dense import apply_score_mod, apply_score_mod_gradient, dense_mask
from .score_mod import ScoreMod, checked_score_mod

__all__ = [
    "BLOCK",
    "BlockMask",
    "CompiledMod",
    "ScoreMod",
    "and_masks",
    "apply_score_mod",
    "apply_score_mod_gradient",
    "block_mask",
    "catalogue",
    "check_block_mask",
    "checked_score_mod",
    "compiled",
    "dense_mask",
    "or_masks",
]
