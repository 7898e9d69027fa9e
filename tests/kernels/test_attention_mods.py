"""score_mod and mask_mod: compiled rows against the plain Python functions, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compiled_mods import by_element, gradient_of, modified, random_scores
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


def _mask_by_element(function, shape):
    out = np.empty(shape, bool)
    for place in np.ndindex(shape):
        out[place] = function(*place)
    return out


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
    scores = random_scores()
    expected = by_element(SCORE_MODS[name], scores)
    np.testing.assert_allclose(modified(scores, SCORE_MODS[name], block=block), expected, rtol=1e-6, atol=3e-6)
    plain = apply_score_mod(scores, SCORE_MODS[name])
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MASK_MODS)
def test_masks_of_the_catalogue(name):
    scores = random_scores()
    expected = _mask_by_element(MASK_MODS[name], scores.shape)
    assert 0 < expected.mean() < 1
    found = modified(scores, mask_mod=MASK_MODS[name])
    np.testing.assert_array_equal(found, np.where(expected, found, -np.inf))
    np.testing.assert_allclose(found[expected], scores[expected], rtol=1e-6)
    np.testing.assert_array_equal(dense_mask(MASK_MODS[name], *scores.shape), expected)


def test_a_mask_is_not_evaluated_where_nothing_is_hidden():
    scores, score_mod, mask = random_scores(), SCORE_MODS["soft_cap"], MASK_MODS["causal"]
    plain, masked = modified(scores, score_mod), modified(scores, score_mod, mask)
    np.testing.assert_array_equal(modified(scores, score_mod, mask, masked=False), plain)
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
    scores = random_scores()
    expected = by_element(function, scores)
    found = modified(scores, function)
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
    scores = random_scores()
    g = np.random.default_rng(5).standard_normal(scores.shape, dtype=np.float32)
    g[0, 0, 3] = 0
    step = 1e-6
    above, below = (by_element(function, scores.astype(np.float64) + x) for x in (step, -step))
    expected = g * (above - below) / (2 * step)
    size = 1e-5 * np.maximum(1, np.abs(expected))
    assert (np.abs(gradient_of(g, scores, function) - expected) <= 3 * size).all()
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
        assert not gradient_of(np.zeros_like(scores), scores, function).any()


def test_nan_and_infinity_pass_through():
    scores = np.array([np.nan, np.inf, -np.inf, 1, -0.0, 200, -200, 1e30], np.float32).reshape(1, 1, 1, 8)
    for function in (
        SCORE_MODS["soft_cap"],
        lambda score, b, h, q, k: np.maximum(score, 0) + np.minimum(2, score),
        lambda score, b, h, q, k: np.where(score > 0, score, np.exp(np.minimum(score, 0))),
    ):
        with np.errstate(invalid="ignore"):
            expected = np.array([function(np.float64(x), 0, 0, 0, 0) for x in scores.ravel()], np.float32)
        np.testing.assert_allclose(modified(scores, function).ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64"]
)
def test_arrays_of_every_dtype(dtype):
    values = np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 100, (3, 29)).astype(dtype)
    scores = random_scores()
    for function in (
        lambda score, b, h, q, k: score + values[h, k],  # side by side
        lambda score, b, h, q, k: score + values[h, 28 - k],  # backwards
        lambda score, b, h, q, k: score + values[k % 3, k],  # gathered
        lambda score, b, h, q, k: score + values[h][q],  # once a row
    ):
        np.testing.assert_allclose(modified(scores, function), by_element(function, scores), rtol=1e-6, atol=1e-5)


def test_large_integers_are_exact():
    ids = np.array([2**40, 2**40 + 1, 7, 2**40] * 8)
    scores = random_scores((1, 1, 32, 32))
    mask = lambda b, h, q, k: ids[q] == ids[k]
    found = np.isfinite(modified(scores, mask_mod=mask))
    np.testing.assert_array_equal(found[0, 0], ids[:, None] == ids)


def test_division_by_zero_is_numpys():
    scores = random_scores((1, 1, 1, 19))
    mask = lambda b, h, q, k: (5 // (k - 3) == 0) | ((k + 4) % (k - 5) == 0)
    found = np.isfinite(modified(scores, mask_mod=mask))[0, 0, 0]
    k = np.arange(19)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(found, (5 // (k - 3) == 0) | ((k + 4) % (k - 5) == 0))


def test_indices_beyond_an_array():
    values = np.arange(8, dtype=np.float32)
    scores = np.zeros((1, 1, 1, 20), np.float32)
    with pytest.raises(IndexError, match=r"<lambda>.*index 0 runs from 0 to 19, and the array has shape \(8,\)"):
        compiled(lambda score, b, h, q, k: score + values[k], shape=scores.shape)
    with pytest.raises(IndexError, match="index 0 runs from -9 to 10"):
        compiled(lambda score, b, h, q, k: score + values[k - 9], shape=scores.shape)
    chosen = modified(scores, lambda score, b, h, q, k: values[k] if k < 8 else -1.0)
    np.testing.assert_array_equal(chosen.ravel(), [*range(8), *[-1] * 12])
    where = np.array([0, 99, -8, -9, 7] * 4)  # the numbers in an array can't be known beforehand
    found = modified(scores, lambda score, b, h, q, k: score + values[where[k]])
    np.testing.assert_array_equal(found.ravel(), [0, np.nan, 0, np.nan, 7] * 4)


def test_given_gradients():
    scores = random_scores()
    g = np.ones_like(scores)
    straight_through = ScoreMod(lambda score, b, h, q, k: 0 * k + np.floor(score), lambda score, b, h, q, k: 0.0)
    assert not gradient_of(g, scores, straight_through).any()
    cube = ScoreMod(lambda score, b, h, q, k: score**3, gradient=lambda score, b, h, q, k: 3 * score * score)
    np.testing.assert_allclose(gradient_of(g, scores, cube), 3.0 * scores**2, rtol=1e-5)
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
