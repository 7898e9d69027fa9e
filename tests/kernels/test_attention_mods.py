"""score_mod and mask_mod: compiled rows against the plain Python functions, their gradients, and what is refused."""

from __future__ import annotations

import functools
import gc
import math
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from minilm_kernels.attention.mods import (
    ScoreMod,
    and_masks,
    apply_score_mod,
    apply_score_mod_gradient,
    catalogue,
    checked_score_mod,
    compiled,
    dense_mask,
    or_masks,
)

numba = pytest.importorskip("numba")

from minilm_kernels.simd import call_address  # noqa: E402

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


def _modified(scores, score_mod=None, mask_mod=None, block=48, masked=True):
    """What the compiled modifier makes of scores in natural units."""
    found = compiled(score_mod, mask_mod, shape=scores.shape)
    rows = (scores / LN2).astype(np.float32)
    _modify_rows(found.modify_address, rows, found.table, block, masked)
    return rows * np.float32(LN2)


def _gradient(g, scores, score_mod):
    found = compiled(score_mod, None, shape=scores.shape)
    gradients = g.copy()
    _gradient_rows(found.gradient_address, (scores / LN2).astype(np.float32), gradients, found.table)
    return gradients


def _by_element(function, scores):
    """The plain Python function, an element at a time in float64."""
    out = np.empty(scores.shape)
    for b, h, q, k in np.ndindex(scores.shape):
        out[b, h, q, k] = function(np.float64(scores[b, h, q, k]), b, h, q, k)
    return out


def _mask_by_element(function, shape):
    out = np.empty(shape, bool)
    for place in np.ndindex(shape):
        out[place] = function(*place)
    return out


def _scores(shape=(2, 3, 21, 29), seed=0):
    return 3 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


random = np.random.default_rng(1)
TABLE, SHORT_TABLE = random.standard_normal((2, 3, 71), dtype=np.float32)
SCORE_MODS = {
    "alibi": catalogue.alibi(3),
    "alibi_slopes": catalogue.alibi([0.5, 0.25, 1]),
    "soft_cap": catalogue.soft_cap(5),
    "relative_bias": catalogue.relative_bias(TABLE),
    "relative_bias_clipped": catalogue.relative_bias(np.ascontiguousarray(SHORT_TABLE[:, :9])),
}
MASK_MODS = {
    "causal": catalogue.causal(),
    "causal_offset": catalogue.causal(8),
    "sliding_window": catalogue.sliding_window(7),
    "sliding_window_offset": catalogue.sliding_window(3, offset=8),
    "prefix_lm": catalogue.prefix_lm([5, 0]),
    "document_mask": catalogue.document_mask(np.sort(random.integers(0, 5, (2, 29)))),
    "document_mask_1d": catalogue.document_mask(np.sort(random.integers(0, 5, 29))),
    "dilated": catalogue.dilated(3, 2),
    "sinks": catalogue.sinks(2, 5),
    "both": and_masks(catalogue.causal(), catalogue.document_mask([0] * 9 + [1] * 20), catalogue.sliding_window(9)),
    "either": or_masks(catalogue.sliding_window(4), lambda b, h, q, k: k == h),
}


@pytest.mark.parametrize("block", [5, 48])
@pytest.mark.parametrize("name", SCORE_MODS)
def test_scores_of_the_catalogue(name, block):
    scores = _scores()
    expected = _by_element(SCORE_MODS[name], scores)
    np.testing.assert_allclose(_modified(scores, SCORE_MODS[name], block=block), expected, rtol=1e-6, atol=3e-6)
    plain = apply_score_mod(scores, SCORE_MODS[name])
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MASK_MODS)
def test_masks_of_the_catalogue(name):
    scores = _scores()
    expected = _mask_by_element(MASK_MODS[name], scores.shape)
    assert 0 < expected.mean() < 1
    found = _modified(scores, mask_mod=MASK_MODS[name])
    np.testing.assert_array_equal(found, np.where(expected, found, -np.inf))
    np.testing.assert_allclose(found[expected], scores[expected], rtol=1e-6)
    np.testing.assert_array_equal(dense_mask(MASK_MODS[name], *scores.shape), expected)


def test_a_mask_is_not_evaluated_where_nothing_is_hidden():
    scores, score_mod, mask = _scores(), SCORE_MODS["soft_cap"], MASK_MODS["causal"]
    plain, masked = _modified(scores, score_mod), _modified(scores, score_mod, mask)
    np.testing.assert_array_equal(_modified(scores, score_mod, mask, masked=False), plain)
    seen = dense_mask(mask, *scores.shape)
    np.testing.assert_array_equal(masked, np.where(seen, plain, -np.inf))


FLOATS = random.standard_normal(40)
NUMBERS = random.integers(1, 90, (3, 40))
FLAGS = random.integers(0, 2, 29).astype(bool)


def _sum_of_powers(score, b, h, q, k):
    total = 0
    for power, factor in enumerate((0.5, -0.25, 0.125)):
        total += factor * score**power
    return total


def _early_return(score, b, h, q, k):
    if k > q:
        return score - 1
    if h == 1:
        score = score * 2
        shift = 3.0
    elif h == 2:
        shift = score
    else:
        shift = 0
    return score + shift


def _unpacked(score, b, h, q, k):
    low, high = -2, 2
    x: float = min(max(score, low), high)
    return _helper(x, scale=0.5) if k % 3 == 0 and not q > k else x


def _helper(x, shift=1.0, *, scale):
    return scale * (x + shift)


EXPRESSIONS = [
    lambda score, b, h, q, k: -score + abs(q - k) - +h,
    lambda score, b, h, q, k: score / (1 + abs(score)) + 1 / (1 + q),
    lambda score, b, h, q, k: (q - k) // 3 + (q - k) % 5 + (k - 7) // -4 + (k - 7) % -4,
    lambda score, b, h, q, k: score // 1.5 + score % 0.7 + (k % (h + 1)) + k // (b + 1),
    lambda score, b, h, q, k: math.exp(score) + np.exp(-score / 2) + math.exp(-h),
    lambda score, b, h, q, k: np.log(1 + score * score) + math.log2(q + 1) + np.sqrt(abs(score)),
    lambda score, b, h, q, k: math.tanh(score) + np.sin(score) * math.cos(score) + np.exp2(score),
    lambda score, b, h, q, k: score**2 + score**-1 + score**3 - (1 + q) ** 0.5 + abs(score) ** 1.5,
    lambda score, b, h, q, k: np.where(score > 0, score, 0.1 * score) + (score if q >= k else -score),
    lambda score, b, h, q, k: np.maximum(score, 0) + min(score, k, 3) + np.clip(score, -1, 1) + np.sign(q - k),
    lambda score, b, h, q, k: math.floor(score) + math.ceil(score) + int(score) + np.rint(score) + round(score),
    lambda score, b, h, q, k: score + ((q ^ k) & 3) + (q | 1) + ~k + (not q < k),
    lambda score, b, h, q, k: score * (0 <= q - k < 4) + (k < 3 or (q < 5 and h == 1)) * 2,
    lambda score, b, h, q, k: score + FLOATS[k] + FLOATS[-1 - k] + FLOATS[q - k] * FLOATS[h],
    lambda score, b, h, q, k: score + NUMBERS[h, k] + NUMBERS[2][q] % 7 + NUMBERS[k % 3, q] + len(NUMBERS),
    lambda score, b, h, q, k: score + FLAGS[k] + (1 if FLAGS[q] else 2) + math.pi * FLOATS.shape[0] + float(k),
    lambda score, b, h, q, k: score + (q * k * 4099 * 4099 % 1000 + 70000 * k // 7 - 10000 * k),
    lambda score, b, h, q, k: 2.5,
    lambda score, b, h, q, k: k,
    _sum_of_powers,
    _early_return,
    _unpacked,
]


@pytest.mark.parametrize("function", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_what_python_computes(function):
    scores = _scores()
    expected = _by_element(function, scores)
    found = _modified(scores, function)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(apply_score_mod(scores, function), expected, rtol=2e-5, atol=2e-5)


DERIVED = [
    *[function for i, function in enumerate(EXPRESSIONS) if i not in (3, 10)],
    *SCORE_MODS.values(),
    lambda score, b, h, q, k: (score * score + 1) ** (0.1 * score) + 2.0**score,
    lambda score, b, h, q, k: FLOATS[k] / (2 + score * score) - np.log2(3 + np.sin(score)),
    lambda score, b, h, q, k: np.where(FLAGS[k], np.exp(-score), score) * score,
]


@pytest.mark.parametrize("function", DERIVED, ids=range(len(DERIVED)))
def test_derivatives_are_the_slopes(function):
    scores = _scores()
    g = np.random.default_rng(5).standard_normal(scores.shape, dtype=np.float32)
    g[0, 0, 3] = 0
    step = 1e-6
    above, below = (_by_element(function, scores.astype(np.float64) + x) for x in (step, -step))
    expected = g * (above - below) / (2 * step)
    size = 1e-5 * np.maximum(1, np.abs(expected))
    assert (np.abs(_gradient(g, scores, function) - expected) <= 3 * size).all()
    plain = apply_score_mod_gradient(scores, function)
    assert plain.dtype == np.float32
    assert (np.abs(g * plain - expected) <= 3 * size).all()
    exact = apply_score_mod_gradient(scores.astype(np.float64), function)
    assert exact.dtype == np.float64
    assert (np.abs(g * exact - expected) <= size).all()


def test_a_gradient_of_zero_stays_zero():
    scores = np.full((1, 1, 1, 16), -np.inf, np.float32)
    for function in (
        SCORE_MODS["soft_cap"],
        lambda score, b, h, q, k: score * score,
        lambda score, b, h, q, k: 1 / score,
    ):
        assert not _gradient(np.zeros_like(scores), scores, function).any()


def test_nan_and_infinity_pass_through():
    scores = np.array([np.nan, np.inf, -np.inf, 1, -0.0, 200, -200, 1e30], np.float32).reshape(1, 1, 1, 8)
    for function in (
        SCORE_MODS["soft_cap"],
        lambda score, b, h, q, k: np.maximum(score, 0) + np.minimum(2, score),
        lambda score, b, h, q, k: np.where(score > 0, score, np.exp(np.minimum(score, 0))),
    ):
        with np.errstate(invalid="ignore"):
            expected = np.array([function(np.float64(x), 0, 0, 0, 0) for x in scores.ravel()], np.float32)
        np.testing.assert_allclose(_modified(scores, function).ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64"]
)
def test_arrays_of_every_dtype(dtype):
    values = np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 100, (3, 29)).astype(dtype)
    scores = _scores()
    for function in (
        lambda score, b, h, q, k: score + values[h, k],  # side by side
        lambda score, b, h, q, k: score + values[h, 28 - k],  # backwards
        lambda score, b, h, q, k: score + values[k % 3, k],  # gathered
        lambda score, b, h, q, k: score + values[h][q],  # once a row
    ):
        np.testing.assert_allclose(_modified(scores, function), _by_element(function, scores), rtol=1e-6, atol=1e-5)


def test_large_integers_are_exact():
    ids = np.array([2**40, 2**40 + 1, 7, 2**40] * 8)
    scores = _scores((1, 1, 32, 32))
    mask = lambda b, h, q, k: ids[q] == ids[k]
    found = np.isfinite(_modified(scores, mask_mod=mask))
    np.testing.assert_array_equal(found[0, 0], ids[:, None] == ids)


def test_division_by_zero_is_numpys():
    scores = _scores((1, 1, 1, 19))
    mask = lambda b, h, q, k: (5 // (k - 3) == 0) | ((k + 4) % (k - 5) == 0)
    found = np.isfinite(_modified(scores, mask_mod=mask))[0, 0, 0]
    k = np.arange(19)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(found, (5 // (k - 3) == 0) | ((k + 4) % (k - 5) == 0))


def test_arrays_are_read_in_place():
    slopes, cap = np.ones(3, np.float32), np.array(2.0)
    function = lambda score, b, h, q, k: cap * np.tanh(score / cap) + slopes[h]
    scores = _scores()
    before = _modified(scores, function)
    found = compiled(function, shape=scores.shape)
    slopes[:], cap[...] = 5, 3
    assert compiled(function, shape=scores.shape) is found
    after = _modified(scores, function)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, _by_element(function, scores), rtol=1e-5, atol=1e-5)


def test_a_changed_number_is_seen():
    n = 3

    def mask(b, h, q, k):
        return k < n

    scores = _scores((1, 1, 1, 12))
    assert np.isfinite(_modified(scores, mask_mod=mask)).sum() == 3
    n = 5
    assert np.isfinite(_modified(scores, mask_mod=mask)).sum() == 5
    limits = [7]
    mask = lambda b, h, q, k: k < limits[0]
    assert np.isfinite(_modified(scores, mask_mod=mask)).sum() == 7
    limits[0] = 9
    assert np.isfinite(_modified(scores, mask_mod=mask)).sum() == 9


class _Rule:
    def __init__(self, factor):
        self.factor, self.bias = factor, np.arange(29, dtype=np.float32)

    def __call__(self, score, b, h, q, k):
        return self.method(score, b, h, q, k)

    def method(self, score, b, h, q, k):
        return self.factor * score + self.bias[k]


def _partial(slopes, score, b, h, q, k, *, shift):
    return score + slopes[h] + shift


def test_all_that_is_called_like_a_function():
    scores = _scores()
    rule, two = _Rule(2), (lambda score, b, h, q, k: score + 1, lambda score, b, h, q, k: score + 2)
    partial = functools.partial(_partial, np.array([1.0, 2, 3]), shift=np.float32(0.5))
    for function in (rule, rule.method, partial, *two, ScoreMod(two[1])):
        np.testing.assert_allclose(_modified(scores, function), _by_element(function, scores), rtol=1e-5, atol=1e-5)


def test_what_is_compiled_is_freed_with_its_function():
    table = np.zeros((1, 29), np.float32)
    function = catalogue.relative_bias(table)
    compiled(function, shape=(1, 1, 29, 29))
    alive = weakref.ref(table)
    del function, table
    gc.collect()
    assert alive() is None


def test_indices_beyond_an_array():
    values = np.arange(8, dtype=np.float32)
    scores = np.zeros((1, 1, 1, 20), np.float32)
    with pytest.raises(IndexError, match=r"<lambda>.*index 0 runs from 0 to 19, and the array has shape \(8,\)"):
        compiled(lambda score, b, h, q, k: score + values[k], shape=scores.shape)
    with pytest.raises(IndexError, match="index 0 runs from -9 to 10"):
        compiled(lambda score, b, h, q, k: score + values[k - 9], shape=scores.shape)
    chosen = _modified(scores, lambda score, b, h, q, k: values[k] if k < 8 else -1.0)
    np.testing.assert_array_equal(chosen.ravel(), [*range(8), *[-1] * 12])
    where = np.array([0, 99, -8, -9, 7] * 4)  # the numbers in an array can't be known beforehand
    found = _modified(scores, lambda score, b, h, q, k: score + values[where[k]])
    np.testing.assert_array_equal(found.ravel(), [0, np.nan, 0, np.nan, 7] * 4)


def test_given_gradients():
    scores = _scores()
    g = np.ones_like(scores)
    straight_through = ScoreMod(lambda score, b, h, q, k: 0 * k + np.floor(score), lambda score, b, h, q, k: 0.0)
    assert not _gradient(g, scores, straight_through).any()
    cube = ScoreMod(lambda score, b, h, q, k: score**3, gradient=lambda score, b, h, q, k: 3 * score * score)
    np.testing.assert_allclose(_gradient(g, scores, cube), 3.0 * scores**2, rtol=1e-5)
    np.testing.assert_allclose(apply_score_mod_gradient(scores, cube), 3.0 * scores**2, rtol=1e-5)
    wrong = ScoreMod(lambda score, b, h, q, k: score * h, gradient=lambda score, b, h, q, k: 1.0)
    with pytest.raises(ValueError, match=r"gradient given for <lambda> is 1 at score .*\(b, h, q, k\) = .*away"):
        compiled(wrong, shape=scores.shape)
    with pytest.raises(TypeError, match="gradient is 3"):
        ScoreMod(lambda score, b, h, q, k: score, gradient=3)
    assert checked_score_mod(None) is None
    assert checked_score_mod(cube) is cube
    with pytest.raises(TypeError, match="score_mod is 3; expected a function"):
        checked_score_mod(3)


@pytest.mark.parametrize("function", [EXPRESSIONS[3], EXPRESSIONS[10]])
def test_underivable_scores_ask_for_a_gradient(function):
    found = compiled(function, shape=(1, 1, 2, 2))
    assert found.modify_address
    with pytest.raises(ValueError, match=r"goes through .* isn't derived .* ScoreMod\(score_mod, gradient=function\)"):
        found.gradient_address  # noqa: B018


def test_identity_gradients_are_known():
    assert compiled(SCORE_MODS["alibi"], shape=(1, 3, 9, 9)).gradient_is_identity
    assert compiled(None, MASK_MODS["causal"], shape=(1, 3, 9, 9)).gradient_is_identity
    assert not compiled(SCORE_MODS["soft_cap"], shape=(1, 3, 9, 9)).gradient_is_identity


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
            r"_loops \(.*test_attention_mods.py:\d+\): `while .*can't be compiled; a modifier is made",
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
        compiled(EXPRESSIONS[0], shape=(1, 2, 3))
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


_PROGRAM = """
import sys
from minilm_kernels.attention.mods import catalogue, compiled
from minilm_kernels.attention.mods.modules import folder, module_of
found = compiled(catalogue.soft_cap(9.5), catalogue.causal(), shape=(1, 1, 64, 64))
assert found.modify_address and found.gradient_address
kernels = module_of(found.source).modify, module_of(found.gradient_source).modify_gradient
print(sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
print(sorted(path.name for path in folder().iterdir() if path.suffix == ".py"))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    def run():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}

    (hits, modules), files = run()
    assert hits == "0"
    assert len(eval(modules)) == 2
    assert len([path for path in files if "minilm_mod_" in path.name]) == 2
    assert run() == (["2", modules], files)


def test_two_processes_at_once(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", _PROGRAM], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))
