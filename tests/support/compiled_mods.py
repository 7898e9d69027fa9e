"""What a compiled modifier of scores computes, and what the plain Python function says."""

from __future__ import annotations

import math

import numba
import numpy as np
from minilm_kernels.attention.mods import compiled
from minilm_kernels.simd import call_address

__all__ = ["by_element", "gradient_of", "modified", "random_scores"]

LN2 = math.log(2)
jit = numba.njit(error_model="numpy")


@jit
def _modify_rows(address, scores, table, block, masked):
    scratch = np.empty(block + 8, np.float32)
    B, H, T, S = scores.shape
    for b in range(B):
        for h in range(H):
            for t in range(T):
                for j in range(0, S, block):
                    width = min(block, S - j)
                    scratch[:] = np.float32(7)
                    scratch[:width] = scores[b, h, t, j : j + width]
                    call_address(
                        address, scratch, np.int64(0), np.int64(width), np.int64(b), np.int64(h), np.int64(t),
                        np.int64(j), masked, table,
                    )  # fmt: skip
                    scores[b, h, t, j : j + width] = scratch[:width]
                    if (scratch[width:] != np.float32(7)).any():
                        scores[:] = np.nan


@jit
def _gradient_rows(address, scores, gradients, table):
    B, H, T, S = scores.shape
    scratch = np.empty(2 * S + 16, np.float32)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scratch[:S] = scores[b, h, t]
                scratch[S + 8 : 2 * S + 8] = gradients[b, h, t]
                call_address(
                    address, scratch, np.int64(0), np.int64(S + 8), np.int64(S), np.int64(b), np.int64(h),
                    np.int64(t), np.int64(0), table,
                )  # fmt: skip
                gradients[b, h, t] = scratch[S + 8 : 2 * S + 8]


def modified(scores, score_mod=None, mask_mod=None, block=48, masked=True):
    """What the compiled modifier makes of scores in natural units."""
    found = compiled(score_mod, mask_mod, shape=scores.shape)
    rows = (scores / LN2).astype(np.float32)
    _modify_rows(found.modify_address, rows, found.table, block, masked)
    return rows * np.float32(LN2)


def gradient_of(g, scores, score_mod):
    """What the compiled gradient makes of the gradient g of modified scores."""
    found = compiled(score_mod, None, shape=scores.shape)
    gradients = g.copy()
    _gradient_rows(found.gradient_address, (scores / LN2).astype(np.float32), gradients, found.table)
    return gradients


def by_element(function, scores):
    """The plain Python function, an element at a time in float64."""
    out = np.empty(scores.shape)
    for b, h, q, k in np.ndindex(scores.shape):
        out[b, h, q, k] = function(np.float64(scores[b, h, q, k]), b, h, q, k)
    return out


def random_scores(shape=(2, 3, 21, 29), seed=0):
    """Scores (B, H, T, S) in natural units, float32."""
    return 3 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
