"""numba.cuda's attention in its simulator, on NumPy arrays; `../test_numba_cuda.py` runs it in another process."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import attention, attention_backward, registry
from minilm_kernels.attention.numba_cuda import tiles

ALLOWED = 1e-5


def _arrays(B, H, Hk, T, S, D, dtype=np.float32):
    random = np.random.default_rng((T, S, D))
    return [random.standard_normal(shape).astype(dtype) for shape in ((B, H, T, D), (B, Hk, S, D), (B, Hk, S, D))]


def _double(x):
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def _check(q, k, v, allowed=ALLOWED, into=None, **settings):
    """Asserts that both passes are within `allowed` of the float64 reference, relative to 1 or the largest value."""
    out, logsumexp = attention(q, k, v, implementation="numba_cuda", **settings)
    doubles = [_double(x) for x in (q, k, v)]
    exact_settings = {name: _double(value) for name, value in settings.items()}
    exact = attention(*doubles, implementation="reference", **exact_settings)
    g = np.random.default_rng(9).standard_normal(q.shape).astype(q.dtype)
    more = {"bias_gradient": "bias" in settings}
    gradients = attention_backward(
        g, q, k, v, out, logsumexp, **settings, **more, into=into, implementation="numba_cuda"
    )
    exact_gradients = attention_backward(
        _double(g), *doubles, *exact, **exact_settings, **more, implementation="reference"
    )
    names = "out", "logsumexp", "dq", "dk", "dv", "dbias"
    for name, mine, wanted in zip(names, (out, logsumexp, *gradients), (*exact, *exact_gradients)):
        assert mine.dtype == q.dtype, name
        assert mine.shape == wanted.shape, name
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(np.isfinite(mine), finite, err_msg=name)
        mine, wanted = mine[finite].astype(np.float64), wanted[finite]
        error = np.abs(mine - wanted).max(initial=0)
        assert error <= allowed * max(1, np.abs(wanted).max(initial=0)), f"{name}: {error:.2g}"
    return out, logsumexp, gradients


# Around the simulator's tile, of 8 queries and 8 keys, and its 8 columns of a head.
@pytest.mark.parametrize("sizes", [(1, 2, 1, 13, 19, 5), (2, 1, 1, 8, 9, 17), (1, 3, 1, 1, 7, 8), (1, 1, 1, 9, 1, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_tails(sizes, causal):
    _check(*_arrays(*sizes), causal=causal)


def test_the_tiles_of_a_card(monkeypatch):
    """32 queries, 32 keys and 256 threads, as on a GPU."""
    monkeypatch.setattr(tiles, "SIMULATED", False)
    _check(*_arrays(1, 1, 1, 5, 34, 36), causal=True)


def test_every_setting_at_once():
    random = np.random.default_rng(0)
    q, k, v = _arrays(2, 2, 1, 10, 14, 4)
    bias = random.standard_normal((1, 2, 10, 14)).astype(np.float32)
    bias[0, 0, 3], bias[:, :, :, 5] = -np.inf, -np.inf
    _check(
        *(q, k, v),
        causal=True,
        window=9,
        scale=0.6,
        soft_cap=3.0,
        bias=bias,
        alibi_slopes=random.random((2, 2), np.float32),
        key_lengths=np.array([13, 0]),
        dropout_p=0.3,
        seed=2**63 + 5,
    )


@pytest.mark.parametrize("shape", [(2, 1, 1, 11), (10, 1)])
def test_gradients_of_a_bias_are_summed_where_it_was_repeated(shape):
    bias = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    _check(*_arrays(2, 2, 1, 10, 11, 2), bias=bias, window=(4, None))


def test_packed_sequences():
    settings = {"cu_seqlens": np.array([0, 3, 3, 12]), "causal": True, "alibi_slopes": [0.1, 0.2]}
    _check(*_arrays(1, 2, 2, 12, 12, 4), **settings)
    _check(*_arrays(1, 1, 1, 9, 14, 4), cu_seqlens=np.array([0, 5, 9]), cu_seqlens_k=np.array([0, 11, 14]))


def test_float16():
    _check(*_arrays(1, 2, 1, 9, 10, 8, np.float16), causal=True, allowed=6e-3)


def test_any_layout_and_results_where_they_are_wanted():
    q, k, v = _arrays(1, 2, 2, 9, 9, 16)
    fused = np.stack([x.swapaxes(1, 2) for x in (q, k, v)], axis=2)  # (B, T, 3, H, D), as a projection leaves it
    fused.flags.writeable = False
    packed = np.full((1, 9, 3, 2, 16), np.nan, np.float32)
    into = tuple(packed[:, :, i].swapaxes(1, 2) for i in range(3))
    out, _, gradients = _check(*(fused[:, :, i].swapaxes(1, 2) for i in range(3)), causal=True, into=into)
    assert all(mine is given for mine, given in zip(gradients, into))
    assert np.isfinite(packed).all()
    assert np.shares_memory(out, out.swapaxes(1, 2).reshape(1, 9, 32))
    _check(q[:, :, ::-1, ::2], k[:, :, ::-1, ::2], v[..., ::2])


@pytest.mark.parametrize("sizes", [(0, 2, 1, 3, 3, 8), (2, 2, 1, 0, 3, 8), (2, 2, 1, 3, 0, 8), (1, 0, 1, 3, 3, 8)])
def test_empty_arrays(sizes):
    out, logsumexp, gradients = _check(*_arrays(*sizes))
    assert not out.any()
    assert np.isneginf(logsumexp).all()
    assert not any(x.any() for x in gradients)


def test_queries_that_see_no_key_give_zeros():
    out, logsumexp, (dq, _, _) = _check(*_arrays(1, 1, 1, 12, 5, 8), causal=True)
    assert not out[:, :, :7].any()
    assert not dq[:, :, :7].any()
    assert np.isneginf(logsumexp[:, :, :7]).all()


def test_nan_and_large_scores():
    q, k, v = _arrays(1, 1, 1, 10, 10, 16)
    eye = np.ascontiguousarray(np.eye(16, dtype=np.float32)[:10])[None, None]
    out, logsumexp = attention(3e37 * eye[:, :, ::-1], eye, v, scale=1, implementation="numba_cuda")
    np.testing.assert_array_equal(out, v[:, :, ::-1])
    np.testing.assert_allclose(logsumexp, 3e37, rtol=1e-6)
    k[0, 0, 6, 0] = np.nan
    out, _ = attention(q, k, v, causal=True, implementation="numba_cuda")
    np.testing.assert_array_equal(np.isnan(out).any(axis=-1)[0, 0], np.arange(10) >= 6)


def test_refuses_what_it_does_not_take():
    q, k, v = _arrays(1, 1, 1, 2, 2, 300)
    with pytest.raises(registry.Refused, match="'numba_cuda': it takes head sizes up to 256"):
        attention(q, k, v, implementation="numba_cuda")
    q, k, v = _arrays(1, 1, 1, 2, 2, 4)
    with pytest.raises(registry.Refused, match="it takes no score_mod and no block_mask"):
        attention(q, k, v, score_mod=lambda score, b, h, t, s: score, implementation="numba_cuda")
    with pytest.raises(registry.Refused, match="it takes float16, float32, and the arrays are float64"):
        attention(*(_double(x) for x in (q, k, v)), implementation="numba_cuda")
    (entry,) = (entry for entry in registry.implementations("attention") if entry.name == "numba_cuda")
    assert not entry.automatic
