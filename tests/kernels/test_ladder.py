"""The steps of the attention ladder: each right on every shape, refusing what it doesn't take, and run only by name."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from minilm_kernels import attention, registry

STEPS = [entry for entry in registry.implementations("attention") if entry.name.startswith("step")]
NAMES = [entry.name for entry in STEPS]
# Around the tiles (2, 4, 6 and 16) and the blocks (32, 64, 96, 128, 192 and 384) of the steps.
LENGTHS = [1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 97, 127, 129, 191, 193, 383, 385]

pytestmark = pytest.mark.parametrize("name", NAMES)


def _arrays(B, H, Hk, T, S, D, dtype=np.float32):
    random = np.random.default_rng((T, S, D))
    return [random.standard_normal(shape).astype(dtype) for shape in ((B, H, T, D), (B, Hk, S, D), (B, Hk, S, D))]


def _check(name, q, k, v, **settings):
    """Asserts that out and logsumexp are within 2e-6 of the float64 reference, relative to the largest value."""
    before = [x.copy() for x in (q, k, v)]
    mine = attention(q, k, v, implementation=name, **settings)
    double = (x.astype(np.float64) for x in (q, k, v))
    exact = attention(*double, implementation="reference", **settings)
    for result, expected in zip(mine, exact):
        assert result.dtype == q.dtype
        assert result.shape == expected.shape
        np.testing.assert_array_equal(np.isneginf(result), np.isneginf(expected))
        finite = np.isfinite(expected)
        assert np.isfinite(result[finite]).all()
        largest = np.abs(expected[finite]).max(initial=0)
        assert np.abs(result[finite] - expected[finite]).max(initial=0) <= 2e-6 * max(largest, 1e-3)
    for x, copy in zip((q, k, v), before):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("causal", [False, True])
def test_every_length(name, causal):
    for T in LENGTHS:
        _check(name, *_arrays(1, 2, 2, T, T, 8), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("T", "S"), [(1, 130), (130, 1), (5, 64), (66, 65), (65, 66), (200, 450), (450, 200), (97, 31)]
)
def test_more_keys_than_queries_and_fewer(name, causal, T, S):
    _check(name, *_arrays(2, 2, 1, T, S, 16), causal=causal)


@pytest.mark.parametrize("D", [1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 80, 128, 256, 300])
def test_every_head_size(name, D):
    _check(name, *_arrays(1, 2, 2, 21, 40, D), causal=True)


@pytest.mark.parametrize(("H", "Hk"), [(1, 1), (6, 6), (6, 2), (6, 1)])
def test_grouped_heads(name, H, Hk):
    _check(name, *_arrays(2, H, Hk, 35, 70, 16), causal=True)


@pytest.mark.parametrize("scale", [0.0, 0.02, 3.0, -1.0])
def test_every_scale(name, scale):
    _check(name, *_arrays(1, 2, 2, 70, 70, 16), causal=True, scale=scale)


def test_scores_too_large_for_an_exponential(name):
    _, k, v = _arrays(1, 1, 1, 40, 40, 64)
    k[0, 0] = np.eye(40, 64)
    out, logsumexp = attention(3e37 * k[:, :, ::-1], k, v, scale=1, implementation=name)
    np.testing.assert_array_equal(out, v[:, :, ::-1])
    np.testing.assert_allclose(logsumexp, 3e37, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(0, 2, 1, 3, 3, 8), (2, 2, 1, 0, 3, 8), (2, 2, 1, 3, 0, 8), (1, 0, 1, 3, 3, 8)])
@pytest.mark.parametrize("causal", [False, True])
def test_empty_arrays(name, sizes, causal):
    q, k, v = _arrays(*sizes)
    out, logsumexp = attention(q, k, v, causal=causal, implementation=name)
    np.testing.assert_array_equal(out, np.zeros_like(q))
    np.testing.assert_array_equal(logsumexp, np.full(q.shape[:3], -np.inf))


def test_queries_that_see_no_key_give_zeros(name):
    q, k, v = _arrays(2, 4, 2, 300, 70, 8)
    out, logsumexp = attention(q, k, v, causal=True, implementation=name)
    assert not out[:, :, :230].any()
    assert np.isneginf(logsumexp[:, :, :230]).all()
    np.testing.assert_allclose(out[:, :, 230], np.repeat(v[:, :, 0], 2, axis=1), rtol=1e-6)


def test_any_layout(name):
    q, k, v = _arrays(2, 3, 3, 33, 33, 16)
    fused = np.stack([x.swapaxes(1, 2) for x in (q, k, v)], axis=2)  # (B, T, 3, H, D), as a projection leaves it
    _check(name, *(fused[:, :, i].swapaxes(1, 2) for i in range(3)), causal=True)
    _check(name, q[..., ::2], k[..., ::2], v[..., ::2], causal=True)
    _check(name, q[:, :, ::-1], k[:, :, ::-1], v[:, :, ::-1], causal=True)
    for x in (q, k, v):
        x.flags.writeable = False
    _check(name, q, k, v, causal=True)


def test_nan_comes_out_where_it_went_in(name):
    q, k, v = _arrays(1, 2, 2, 70, 70, 16)
    q[0, 0, 10, 3] = k[0, 1, 30, 0] = np.nan
    out, logsumexp = attention(q, k, v, causal=True, implementation=name)
    seen = np.zeros((1, 2, 70), bool)
    seen[0, 0, 10] = seen[0, 1, 30:] = True
    np.testing.assert_array_equal(np.isnan(out), np.broadcast_to(seen[..., None], out.shape))
    np.testing.assert_array_equal(np.isnan(logsumexp), seen)


def test_same_bits_on_any_number_of_threads(name, same_bits):
    if name in ("step1_textbook", "step2_blocked"):
        pytest.skip("the BLAS cuts its products up by the number of threads")
    q, k, v = _arrays(2, 6, 2, 130, 400, 32)
    same_bits(lambda: attention(q, k, v, causal=True, implementation=name))


def test_dtypes(name):
    (entry,) = (entry for entry in STEPS if entry.name == name)
    arrays = _arrays(1, 2, 1, 40, 50, 8, np.float64)
    if "float64" in entry.dtypes:
        out, _ = attention(*arrays, causal=True, implementation=name)
        np.testing.assert_allclose(out, attention(*arrays, causal=True, implementation="reference")[0], atol=1e-14)
    else:
        with pytest.raises(ValueError, match=f"'{name}': it takes float32, and the arrays are float64"):
            attention(*arrays, implementation=name)


def test_refuses_what_it_does_not_take(name):
    q, k, v = _arrays(2, 2, 2, 5, 5, 8)
    with pytest.raises(ValueError, match=f"'{name}': it is a step of the ladder, .* no key_lengths"):
        attention(q, k, v, key_lengths=[3, 4], implementation=name)


def test_has_the_signature_of_the_reference_and_runs_only_by_name(name):
    (entry,) = (entry for entry in STEPS if entry.name == name)
    reference = registry.implementations("attention")[-1]
    assert inspect.signature(entry.function) == inspect.signature(reference.function)
    assert not entry.automatic
    assert inspect.getdoc(inspect.getmodule(inspect.unwrap(entry.function))).startswith(f"Step {name[4]}, ")


def test_there_are_six_steps(name):
    assert [number[4] for number in sorted(NAMES)] == list("123456")
