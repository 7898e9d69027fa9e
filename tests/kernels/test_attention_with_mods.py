"""attention with score_mod and block_mask, forward and backward: the CPU kernels against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import attention, attention_backward, implementations
from minilm_kernels.attention.mods import ScoreMod, and_masks, block_mask, catalogue, or_masks

CPU = [entry.name for entry in implementations("attention", device="cpu") if entry.automatic]
LENGTHS = [1, 2, 5, 6, 7, 17, 47, 48, 49, 95, 97, 145]
LONGEST = max(LENGTHS)

random = np.random.default_rng(3)
TABLE = random.standard_normal((4, 2 * LONGEST - 1), dtype=np.float32)
IDS = np.sort(random.integers(0, 5, (2, LONGEST)), axis=1)


def _gated(score, b, h, q, k):
    if h % 2:
        return score * 0.5 + TABLE[h, k]
    return np.where(score > 0, score, 0.1 * score) - 0.01 * abs(q - k)


SCORE_MODS = {
    "none": None,
    "alibi": catalogue.alibi(4),
    "soft_cap": catalogue.soft_cap(2.0),
    "relative_bias": catalogue.relative_bias(TABLE),
    "gated": _gated,
    "given": ScoreMod(lambda score, b, h, q, k: score**3 / 9, lambda score, b, h, q, k: score**2 / 3),
}
MASK_MODS = {
    "none": None,
    "causal": catalogue.causal(),
    "window": catalogue.sliding_window(20),
    "prefix": catalogue.prefix_lm([30, 3]),
    "documents": catalogue.document_mask(IDS),
    "causal_documents": and_masks(catalogue.causal(), catalogue.document_mask(IDS)),
    "dilated": catalogue.dilated(9, 4),
    "sinks": or_masks(catalogue.sinks(3, 12), lambda b, h, q, k: (k == q + 60) & (h == 1)),
    "nothing": lambda b, h, q, k: (q % 7 == 0) & (k < q),
}


def _inputs(B, H, Hk, T, S, D, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(B, H, T, D), (B, H, T, D), (B, Hk, S, D), (B, Hk, S, D)]
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _attention(*arrays, **options):
    """`attention` with zero where logsumexp is -inf, since the error law takes differences."""
    out, logsumexp = attention(*arrays, **options)
    return out, np.where(logsumexp == -np.inf, np.float32(0), logsumexp)


def _obey(error_law, implementation, arrays, **options):
    g, q, k, v = arrays
    error_law(_attention, q, k, v, implementation=implementation, **options)
    out, logsumexp = attention(q, k, v, implementation="reference", **options)
    # Gradients are sums of terms that cancel: with one key seen they are rounding alone.
    size = (
        max(np.abs(x).max() for x in (q, k))
        * np.abs(g @ np.repeat(v, q.shape[1] // v.shape[1], 1).swapaxes(2, 3)).max()
    )
    error_law(
        attention_backward, g, q, k, v, out, logsumexp, implementation=implementation, size=float(size), **options
    )


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=40)
@given(
    B=st.integers(1, 2),
    heads=st.sampled_from([(1, 1), (3, 3), (4, 2), (3, 1)]),
    T=st.sampled_from(LENGTHS),
    S=st.sampled_from(LENGTHS),
    D=st.sampled_from([8, 17, 32]),
    score_mod=st.sampled_from(sorted(SCORE_MODS)),
    mask_mod=st.sampled_from(sorted(MASK_MODS)),
    causal=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, B, heads, T, S, D, score_mod, mask_mod, causal, seed, error_law):
    options = {"score_mod": SCORE_MODS[score_mod], "causal": causal}
    if mask_mod != "none":
        options["block_mask"] = block_mask(MASK_MODS[mask_mod], B, heads[0], T, S)
    _obey(error_law, implementation, _inputs(B, *heads, T, S, D, seed), **options)


@pytest.mark.parametrize("implementation", CPU)
def test_after_what_is_built_in(implementation, error_law):
    arrays = _inputs(2, 4, 2, 97, 97, 16)
    _obey(
        error_law, implementation, arrays, soft_cap=3.0, alibi_slopes=catalogue.alibi_slopes(4), window=40,
        key_lengths=np.array([97, 50]), score_mod=SCORE_MODS["gated"],
        block_mask=block_mask(MASK_MODS["prefix"], 2, None, 97, 97),
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MASK_MODS if name not in ("none", "nothing")])
def test_masks_that_attention_has_itself(name):
    _, q, k, v = _inputs(2, 2, 2, 145, 145, 16)
    mask = block_mask(MASK_MODS[name], 2, 2, 145, 145)
    out, logsumexp = attention(q, k, v, block_mask=mask)
    bias = np.where(np.broadcast_to(mask.dense(), (2, 2, 145, 145)), np.float32(0), np.float32(-np.inf))
    expected, expected_logsumexp = attention(q, k, v, bias=bias)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logsumexp, expected_logsumexp, rtol=1e-5, atol=1e-6)


def test_a_mod_that_attention_has_itself():
    g, q, k, v = _inputs(2, 4, 2, 97, 97, 16)
    for name, built_in in (("soft_cap", {"soft_cap": 2.0}), ("alibi", {"alibi_slopes": catalogue.alibi_slopes(4)})):
        mine, theirs = {"causal": True, "score_mod": SCORE_MODS[name]}, {"causal": True, **built_in}
        results = [attention(q, k, v, **options) for options in (mine, theirs)]
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=2e-6)
        pairs = zip(*(attention_backward(g, q, k, v, *kept, **x) for kept, x in zip(results, (mine, theirs))))
        for gradient, expected in pairs:
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_reference_gradient_is_the_numeric_one(numeric_gradient):
    g, q, k, v = (x.astype(np.float64) for x in _inputs(2, 2, 1, 3, 4, 3))
    options = {"score_mod": SCORE_MODS["gated"], "block_mask": block_mask(lambda b, h, q, k: k != q + h, 2, 2, 3, 4)}
    gradients = attention_backward(g, q, k, v, *attention(q, k, v, **options), **options)
    for array, gradient in zip((q, k, v), gradients):
        expected = numeric_gradient(lambda: attention(q, k, v, **options)[0], array, g)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("implementation", [name for name in CPU if name != "reference"])
def test_same_bits_on_any_number_of_threads(implementation, same_bits):
    g, q, k, v = _inputs(2, 6, 2, 145, 200, 32)
    mask = block_mask(catalogue.dilated(50, 2), None, None, 145, 200)
    options = {"score_mod": catalogue.soft_cap(5.0), "block_mask": mask, "implementation": implementation}
    kept = attention(q, k, v, **options)
    same_bits(lambda: attention(q, k, v, **options))
    same_bits(lambda: attention_backward(g, q, k, v, *kept, **options))


def test_a_score_without_a_derivative_runs_forward():
    g, q, k, v = _inputs(1, 1, 1, 9, 9, 8)
    rounded = lambda score, b, h, q, k: np.floor(score)
    kept = attention(q, k, v, score_mod=rounded)
    np.testing.assert_allclose(kept[0], attention(q, k, v, score_mod=rounded, implementation="reference")[0], atol=1e-6)
    with pytest.raises(ValueError, match="the gradient of a score that goes through floor isn't derived"):
        attention_backward(g, q, k, v, *kept, score_mod=rounded)


def test_masks_that_do_not_fit_are_refused():
    _, q, k, v = _inputs(2, 2, 2, 9, 9, 8)
    with pytest.raises(ValueError, match=r"attention has \(2, 2, 9, 9\)"):
        attention(q, k, v, block_mask=block_mask(catalogue.causal(), 1, None, 9, 9))
    with pytest.raises(TypeError, match="expected what block_mask"):
        attention(q, k, v, block_mask=catalogue.causal())
    with pytest.raises(TypeError, match="score_mod is 'alibi'"):
        attention(q, k, v, score_mod="alibi")
