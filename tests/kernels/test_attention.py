"""attention and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import attention, attention_backward, implementations

CPU = [entry.name for entry in implementations("attention", device="cpu") if entry.automatic]
# Around the sizes of the CPU kernel's register tiles (6 and 16) and of its blocks (48 and 64).
LENGTHS = [0, 1, 2, 5, 6, 7, 15, 16, 17, 47, 48, 49, 63, 64, 65, 97, 129]


def _inputs(B, H, Hk, T, S, D, seed=0, layout="contiguous"):
    """g, q, k and v of these sizes in float32, laid out in memory as models do it, or worse."""
    random = np.random.default_rng(seed)
    shapes = [(B, H, T, D), (B, H, T, D), (B, Hk, S, D), (B, Hk, S, D)]
    return [_laid_out(random.standard_normal(shape, dtype=np.float32), layout) for shape in shapes]


def _laid_out(x, layout):
    B, H, T, D = x.shape
    if layout == "projection":  # a third of a fused projection's (B, T, 3, H, D)
        fused = np.zeros((B, T, 3, H, D), x.dtype)
        fused[:, :, 1] = x.swapaxes(1, 2)
        return fused[:, :, 1].swapaxes(1, 2)
    if layout == "strided":
        wide = np.zeros((B, H, T, 2 * D), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]
    if layout == "readonly":
        x.flags.writeable = False
    return x


def _attention(*arrays, **options):
    """`attention` with zero where logsumexp is -inf, since the error law takes differences."""
    out, logsumexp = attention(*arrays, **options)
    return out, np.where(logsumexp == -np.inf, np.float32(0), logsumexp)


def _obey(error_law, implementation, g, q, k, v, **options):
    error_law(_attention, q, k, v, implementation=implementation, **options)
    out, logsumexp = attention(q, k, v, implementation="reference", **options)
    size = _cancelling(g, q, k, v, logsumexp, options.get("scale"))
    arrays = (g, q, k, v, out, logsumexp)
    # A score's rounding, of which a plain product of few terms has little, is in all its weight's contributions.
    plain = attention_backward(*arrays, implementation="reference", **options)
    size = max(size, _largest_score(q, k, options.get("scale")) / 4 * max(np.abs(x).max(initial=0) for x in plain))
    error_law(attention_backward, *arrays, implementation=implementation, size=size, **options)


def _largest_score(q, k, scale):
    k = np.repeat(k, q.shape[1] // k.shape[1], axis=1).swapaxes(2, 3)
    return np.abs(q @ k * (q.shape[3] ** -0.5 if scale is None else scale)).max(initial=0)


def _cancelling(g, q, k, v, logsumexp, scale):
    """The largest term of which dq and dk are differences: with one key, for example, they are rounding alone."""
    g, q, k, v = (x.astype(np.float64) for x in (g, q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1).swapaxes(2, 3) for x in (k, v))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    finite = np.where(np.isfinite(logsumexp), logsumexp, np.inf)[..., None]
    weights = np.exp(np.minimum(scale * q @ k - finite, 0))
    largest = max(np.abs(x).max(initial=0) for x in (q, k))
    return abs(scale) * largest * (weights * np.abs(g @ v)).max(initial=0)


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 2),
    heads=st.sampled_from([(1, 1), (3, 3), (4, 2), (3, 1)]),
    T=st.sampled_from(LENGTHS),
    S=st.sampled_from(LENGTHS),
    D=st.sampled_from([1, 8, 17, 32]),
    causal=st.booleans(),
    lengths=st.none() | st.lists(st.floats(0, 1), min_size=2, max_size=2),
    scale=st.sampled_from([None, 0.3, 2, -1.0]),
    layout=st.sampled_from(["contiguous", "projection", "strided", "reversed", "readonly"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, B, heads, T, S, D, causal, lengths, scale, layout, seed, error_law):
    key_lengths = None if lengths is None else np.array([round(part * S) for part in lengths[:B]])
    arrays = _inputs(B, *heads, T, S, D, seed, layout)
    _obey(error_law, implementation, *arrays, causal=causal, key_lengths=key_lengths, scale=scale)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("D", [1, 2, 7, 8, 16, 17, 31, 33, 64, 80, 128, 256, 300])
def test_every_head_size(implementation, D, error_law):
    _obey(error_law, implementation, *_inputs(1, 2, 1, 50, 67, D), causal=True)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("sizes", [(1, 2, 2, 300, 300, 16), (1, 4, 2, 150, 130, 64), (1, 8, 1, 1, 500, 32)])
@pytest.mark.parametrize("causal", [False, True])
def test_sequences_of_many_blocks(implementation, sizes, causal, error_law):
    _obey(error_law, implementation, *_inputs(*sizes), causal=causal)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("sizes", [(0, 2, 1, 3, 3, 8), (2, 2, 1, 0, 3, 8), (2, 2, 1, 3, 0, 8), (1, 0, 1, 3, 3, 8)])
def test_empty_arrays(implementation, sizes, error_law):
    g, q, k, v = _inputs(*sizes)
    out, logsumexp = attention(q, k, v, implementation=implementation)
    np.testing.assert_array_equal(out, np.zeros_like(q))
    np.testing.assert_array_equal(logsumexp, np.full(q.shape[:3], -np.inf))
    gradients = attention_backward(g, q, k, v, out, logsumexp, implementation=implementation)
    for array, gradient in zip((q, k, v), gradients):
        np.testing.assert_array_equal(gradient, np.zeros_like(array))


@pytest.mark.parametrize("implementation", CPU)
def test_rows_that_see_no_key_give_zeros(implementation):
    g, q, k, v = _inputs(2, 2, 2, 70, 50, 8)
    lengths = np.array([0, 40])
    out, logsumexp = attention(q, k, v, causal=True, key_lengths=lengths, implementation=implementation)
    dq, dk, dv = attention_backward(
        g, q, k, v, out, logsumexp, causal=True, key_lengths=lengths, implementation=implementation
    )
    for array in (out, dq):  # with 20 queries more than keys, the first 20 see none
        assert not array[0].any()
        assert not array[1, :, :20].any()
        assert array[1, :, 20:].any(axis=-1)[:, 1:].all()
    np.testing.assert_array_equal(np.isneginf(logsumexp[1]), np.arange(70) < 20 * np.ones((2, 1)))
    assert np.isneginf(logsumexp[0]).all()
    for array in (dk, dv):
        assert not array[0].any()
        assert not array[1, :, 40:].any()
        assert array[1, :, :40].any(axis=-1).all()


@pytest.mark.parametrize("implementation", CPU)
def test_masked_keys_are_as_good_as_absent(implementation):
    g, q, k, v = _inputs(1, 2, 1, 33, 90, 16)
    k[:, :, 55:], v[:, :, 55:] = 1e30, -1e30
    whole = attention(q, k, v, key_lengths=[55], implementation=implementation)
    part = attention(q, k[:, :, :55], v[:, :, :55], implementation=implementation)
    for mine, expected in zip(whole, part):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
    gradients = attention_backward(g, q, k, v, *whole, key_lengths=[55], implementation=implementation)
    expected = attention_backward(g, q, k[:, :, :55], v[:, :, :55], *part, implementation=implementation)
    for mine, plain in zip(gradients, expected):
        np.testing.assert_allclose(mine[:, :, : plain.shape[2]], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", CPU)
def test_decoding_one_query_gives_the_last_row(implementation):
    _, q, k, v = _inputs(2, 4, 2, 100, 100, 32)
    whole = attention(q, k, v, causal=True, implementation=implementation)
    last = attention(q[:, :, -1:], k, v, causal=True, implementation=implementation)
    for mine, expected in zip(last, whole):
        np.testing.assert_allclose(mine, expected[:, :, -1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", CPU)
def test_large_scores_pick_one_key(implementation):
    _, _, k, v = _inputs(1, 1, 1, 40, 40, 64)
    k = np.ascontiguousarray(np.eye(64, dtype=np.float32)[:40])[None, None]
    q = 3e37 * k[:, :, ::-1]
    out, logsumexp = attention(q, k, v, scale=1, implementation=implementation)
    np.testing.assert_array_equal(out, v[:, :, ::-1])
    np.testing.assert_allclose(logsumexp, 3e37, rtol=1e-6)
    dq, dk, dv = attention_backward(v, q, k, v, out, logsumexp, scale=1, implementation=implementation)
    assert np.isfinite(dq).all()
    assert np.isfinite(dk).all()
    assert np.isfinite(dv).all()


@pytest.mark.parametrize("implementation", CPU)
def test_nan_comes_out_where_it_went_in(implementation):
    g, q, k, v = _inputs(1, 2, 2, 70, 70, 16)
    q[0, 0, 10, 3] = np.nan
    k[0, 1, 30, 0] = np.nan
    out, logsumexp = attention(q, k, v, causal=True, implementation=implementation)
    seen = np.zeros((2, 70), bool)
    seen[0, 10] = seen[1, 30:] = True
    np.testing.assert_array_equal(np.isnan(out), np.broadcast_to(seen[None, :, :, None], out.shape))
    np.testing.assert_array_equal(np.isnan(logsumexp), seen[None])
    dq, dk, dv = attention_backward(g, q, k, v, out, logsumexp, causal=True, implementation=implementation)
    np.testing.assert_array_equal(np.isnan(dq).all(axis=-1), seen[None])
    for array in (dk, dv):
        np.testing.assert_array_equal(np.isnan(array).all(axis=-1)[0, 0, :11], True)
    v[0, 0, 0, 5] = np.nan
    out, _ = attention(q, k, v, causal=True, implementation=implementation)
    assert np.isnan(out[0, 0, :, 5]).all()


@pytest.mark.parametrize("implementation", [name for name in CPU if name != "reference"])
def test_same_bits_on_any_number_of_threads(implementation, same_bits):
    g, q, k, v = _inputs(2, 6, 2, 130, 200, 32)
    kept = attention(q, k, v, causal=True)
    same_bits(lambda: attention(q, k, v, causal=True, implementation=implementation))
    same_bits(lambda: attention_backward(g, q, k, v, *kept, causal=True, implementation=implementation))


def test_results_are_laid_out_for_merging_heads():
    g, q, k, v = _inputs(2, 4, 2, 9, 11, 8)
    out, logsumexp = attention(q, k, v)
    for array in (out, *attention_backward(g, q, k, v, out, logsumexp)):
        B, H, T, D = array.shape
        assert np.shares_memory(array, array.swapaxes(1, 2).reshape(B, T, H * D))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_lengths", [None, [3, 0]])
def test_reference_gradient_is_the_numeric_one(causal, key_lengths, numeric_gradient):
    g, q, k, v = (x.astype(np.float64) for x in _inputs(2, 4, 2, 3, 4, 3))
    options = {"causal": causal, "key_lengths": key_lengths, "scale": 0.8}
    gradients = attention_backward(g, q, k, v, *attention(q, k, v, **options), **options)
    for array, gradient in zip((q, k, v), gradients):
        assert gradient.dtype == np.float64
        expected = numeric_gradient(lambda: attention(q, k, v, **options)[0], array, g)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("Hk", [6, 2])
def test_parity_with_torch(implementation, causal, Hk, torch):
    g, q, k, v = _inputs(2, 6, Hk, 70, 70, 32)
    queries, keys, values = leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, is_causal=causal, enable_gqa=Hk != 6
    )
    theirs.backward(torch.from_numpy(g))
    out, logsumexp = attention(q, k, v, causal=causal, implementation=implementation)
    np.testing.assert_allclose(out, theirs.detach().numpy(), rtol=1e-4, atol=2e-6)
    gradients = attention_backward(g, q, k, v, out, logsumexp, causal=causal, implementation=implementation)
    for gradient, leaf in zip(gradients, leaves):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_refuses_arrays_that_do_not_fit():
    _, q, k, v = _inputs(2, 4, 2, 3, 5, 8)
    out, logsumexp = attention(q, k, v)
    with pytest.raises(ValueError, match=r"q has shape \(4, 3, 8\)"):
        attention(q[0], k, v)
    with pytest.raises(ValueError, match="head size of 1 or more"):
        attention(q[..., :0], k, v)
    with pytest.raises(ValueError, match=r"k and v have shape"):
        attention(q, k[0], v[0])
    with pytest.raises(ValueError, match=r"v has shape \(2, 2, 4, 8\); expected \(2, 2, 5, 8\)"):
        attention(q, k, v[:, :, 1:])
    with pytest.raises(ValueError, match="same batch and head size"):
        attention(q[:1], k, v)
    with pytest.raises(ValueError, match="same batch and head size"):
        attention(q[..., 1:], k, v)
    with pytest.raises(ValueError, match="q has 3 heads and k has 2"):
        attention(q[:, 1:], k, v)
    with pytest.raises(TypeError, match="k is float64; expected float32"):
        attention(q, k.astype(np.float64), v)
    with pytest.raises(TypeError, match="q is int64"):
        attention(q.astype(np.int64), k, v)
    with pytest.raises(ValueError, match=r"key_lengths has shape \(3,\); expected \(2,\)"):
        attention(q, k, v, key_lengths=[1, 2, 3])
    with pytest.raises(TypeError, match="key_lengths is float64; expected integers"):
        attention(q, k, v, key_lengths=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"key_lengths is \[1, 6\]; expected lengths from 0 to S = 5"):
        attention(q, k, v, key_lengths=[1, 6])
    with pytest.raises(ValueError, match=r"key_lengths is \[-1, 5\]"):
        attention(q, k, v, key_lengths=[-1, 5])
    with pytest.raises(ValueError, match=r"g has shape \(2, 4, 2, 8\); expected \(2, 4, 3, 8\)"):
        attention_backward(out[:, :, 1:], q, k, v, out, logsumexp)
    with pytest.raises(ValueError, match="logsumexp has shape"):
        attention_backward(out, q, k, v, out, logsumexp[:1])
