"""Functions, arrays and settings that score_mod and mask_mod refuse, each with what to write instead."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels.attention.mods import catalogue, compiled

import minilm
from minilm import ops

LEARNT = minilm.tensor(np.ones(4, np.float32), requires_grad=True)


def _loops(score, b, h, q, k):
    while score > 1:
        score = score - 1
    return score


def _half(score, b, h, q, k):
    if q > k:
        return score


def _unset(score, b, h, q, k):
    if q > k:
        x = 1
    return score + x


def _endless(score, b, h, q, k):
    return _endless(score, b, h, q, k)


WHOLE = np.ones((3, 4))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            _loops,
            ValueError,
            r"_loops \(.*test_attention_mods_refused.py:\d+\): `while .*can't be compiled; a modifier is made",
        ),
        (_half, ValueError, "can end without returning"),
        (_unset, ValueError, "the name 'x' has no value"),
        (_endless, ValueError, "calls itself"),
        (lambda score, b, h, q: score, TypeError, r"it is called with \(score, b, h, q, k\)"),
        (lambda score, b, h, q, k: score > 0, TypeError, "returns a truth value; a score_mod returns"),
        (
            lambda score, b, h, q, k: score + WHOLE,
            ValueError,
            r"an array of shape \(3, 4\) is computed with as a whole",
        ),
        (lambda score, b, h, q, k: score + WHOLE[k], ValueError, r"an array of shape \(4,\)"),
        (lambda score, b, h, q, k: score + WHOLE[h, q, k], ValueError, r"has 3 indices"),
        (lambda score, b, h, q, k: score + WHOLE[score, 0], TypeError, "indexed with a float32"),
        (lambda score, b, h, q, k: score + WHOLE[0:2, 0], ValueError, "can't be compiled"),
        (lambda score, b, h, q, k: score.sum(), ValueError, "`score.sum` can't be compiled"),
        (lambda score, b, h, q, k: ops.tanh(score), ValueError, "`ops.tanh` is an operation on tensors.*np.tanh say"),
        (
            lambda score, b, h, q, k: score - LEARNT[h],
            ValueError,
            r"`LEARNT\[h\]` is an element of a tensor",
        ),
        (lambda score, b, h, q, k: np.sinc(score), ValueError, "`np.sinc` can't be compiled"),
        (lambda score, b, h, q, k: score and q, ValueError, "where and/or wants a comparison"),
        (lambda score, b, h, q, k: score + "x", ValueError, "where a str is computed with"),
        (lambda score, b, h, q, k: score & 1, TypeError, "&, | and ^ take"),
        (lambda score, b, h, q, k: score + [x * 2 for x in (1, 2)], ValueError, "can't be compiled"),
        (lambda score, b, h, q, k: score + sum(range(k)), ValueError, "can't be compiled|known beforehand"),
        (eval("lambda score, b, h, q, k: score"), ValueError, "source of <lambda> can't be"),
        (max, TypeError, "not a function written in Python"),
    ],
)
def test_what_is_refused(function, error, message):
    with pytest.raises((error, TypeError) if "beforehand" in message else error, match=message):
        compiled(function, shape=(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros(9, np.float16), TypeError, "array of float16; expected one of"),
        (np.zeros(9, np.complex64), TypeError, "array of complex64"),
        (np.zeros(9, np.uint64), TypeError, "array of uint64"),
        (np.zeros(9, ">f4"), TypeError, "array of >f4"),
        (np.zeros(18)[::2], ValueError, "gaps in memory; use numpy.ascontiguousarray"),
        (np.zeros(0), ValueError, "no elements"),
    ],
)
def test_arrays_that_are_refused(array, error, message):
    with pytest.raises(error, match=message):
        compiled(lambda score, b, h, q, k: score + array[k], shape=(1, 1, 4, 4))


def test_shapes_that_are_refused():
    with pytest.raises(ValueError, match=r"expected \(B, H, T, S\)"):
        compiled(lambda score, b, h, q, k: score, shape=(1, 2, 3))
    arrays = [np.zeros((1, 1, 1), np.float32) for _ in range(17)]
    with pytest.raises(ValueError, match="17 arrays, whose addresses and shapes take 68 places"):
        compiled(lambda score, b, h, q, k: score + sum_of(arrays), shape=(1, 1, 4, 4))


def sum_of(arrays):
    total = 0.0
    for array in arrays:
        total = total + array[0, 0, 0]
    return total


@pytest.mark.parametrize(
    "make",
    [
        lambda: catalogue.sliding_window(0),
        lambda: catalogue.dilated(3, 0),
        lambda: catalogue.sinks(-1, 3),
        lambda: catalogue.soft_cap(0),
        lambda: catalogue.prefix_lm([0.5]),
        lambda: catalogue.document_mask(np.zeros((2, 2, 2), int)),
        lambda: catalogue.alibi(np.zeros((2, 2))),
        lambda: catalogue.relative_bias(np.zeros((2, 4))),
    ],
)
def test_settings_the_catalogue_refuses(make):
    with pytest.raises(ValueError, match="expected"):
        make()
