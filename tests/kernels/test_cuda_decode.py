"""Attention of a few queries to many keys on CUDA, emulated, against the float64 reference."""

from __future__ import annotations

import minilm_kernels
import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.attention import cuda_decode

_SHAPES = [  # B, H, Hk, T, S, D
    (1, 1, 1, 1, 1, 64),
    (2, 4, 2, 1, 37, 64),
    (1, 8, 1, 1, 700, 80),
    (2, 6, 2, 2, 300, 128),
    (1, 2, 2, 5, 130, 256),
    (1, 3, 3, 1, 260, 8),
]
_SETTINGS = [
    {},
    {"causal": True},
    {"causal": True, "window": 9, "soft_cap": 5.0},
    {"window": (20, None), "scale": 0.3},
]


def _draw(rng, shape, dtype):
    B, H, Hk, T, S, D = shape
    q = rng.standard_normal((B, T, H, D)).astype(dtype).swapaxes(1, 2)
    cache = rng.standard_normal((2, B, Hk, S + 3, D)).astype(dtype)  # of which the last three places are empty
    cache[..., S:, :] = np.nan
    return q, cache[0, :, :, :S], cache[1, :, :, :S]


def _check(found, q, k, v, **settings):
    double = [x.astype(np.float64) for x in (q, k, v)]
    exact = minilm_kernels.attention(*double, **settings, implementation="reference")
    # NumPy computes with bfloat16 only in part: what it rounds to is added.
    plain = minilm_kernels.attention(q, k, v, **settings, implementation="reference")
    for mine, low, e in zip(found, plain, exact):
        assert mine.shape == e.shape
        finite = np.isfinite(e)
        np.testing.assert_array_equal(np.isfinite(mine), finite)
        mine, low, e = (x.astype(np.float64)[finite] for x in (mine, low, e))
        eps = float(ml_dtypes.finfo(q.dtype).eps)
        largest = np.abs(e).max(initial=0)
        assert np.abs(mine - e).max(initial=0) <= 2 * np.abs(low - e).max(initial=0) + eps * largest


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_against_the_reference(emulated, rng, shape, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    q, k, v = _draw(rng, shape, dtype)
    for number, settings in enumerate(_SETTINGS):
        with emulated(descending=number % 2 == 1) as emulator:
            found = _call(q, k, v, **settings)
        assert emulator.launches == ["decode_split", "decode_combine"]
        assert found[0].dtype == dtype
        _check(found, q, k, v, **settings)


def test_lengths_of_keys_and_rows_that_see_none(emulated, rng):
    q, k, v = _draw(rng, (3, 4, 2, 2, 600, 64), np.float32)
    lengths = np.array([0, 5, 600])
    with emulated():
        found = _call(q, k, v, key_lengths=lengths, causal=True)
    assert not found[0][0].any()
    _check(found, q, k, v, key_lengths=lengths, causal=True)


def test_nan_in_a_key_reaches_the_rows_that_see_it(emulated, rng):
    q, k, v = _draw(rng, (1, 2, 1, 2, 300, 64), np.float32)
    k[0, 0, 299, 3] = np.nan
    with emulated():
        out, logsumexp = _call(q, k, v, causal=True)
    np.testing.assert_array_equal(np.isnan(logsumexp), [[[False, True], [False, True]]])
    np.testing.assert_array_equal(np.isnan(out).all(axis=-1), np.isnan(logsumexp))


@pytest.mark.parametrize(
    ("shape", "settings", "reason"),
    [
        ((1, 32, 1, 1, 64, 64), {}, "up to 16 queries"),
        ((1, 1, 1, 1, 64, 36), {}, "head size is 36"),
        ((1, 1, 1, 1, 0, 64), {}, "no keys"),
        ((32768, 2, 2, 1, 1, 8), {}, "at most 65535 key heads of all batch rows, and there are 65536"),
        ((1, 1, 1, 1, 64, 64), {"dropout_p": 0.1}, "it has no dropout_p"),
        ((1, 1, 1, 1, 64, 64), {"alibi_slopes": np.ones(1, np.float32)}, "it has no alibi_slopes"),
        ((1, 1, 1, 1, 64, 64), {"bias": np.zeros((1, 1, 1, 64), np.float32)}, "it has no bias"),
    ],
)
def test_what_it_leaves_to_others(rng, shape, settings, reason):
    settings = {"causal": False, "window": None, "scale": 1.0, "soft_cap": None, "dropout_p": 0.0, "seed": 0} | settings
    assert reason in cuda_decode._limits(*_draw(rng, shape, np.float32), **settings)


def _call(q, k, v, *, causal=False, window=None, scale=None, soft_cap=None, key_lengths=None):
    """The implementation, with the settings as `attention` hands them on."""
    window = (window - 1, window - 1) if isinstance(window, int) else window
    scale = q.shape[3] ** -0.5 if scale is None else scale
    settings = {"window": window, "scale": scale, "soft_cap": soft_cap, "key_lengths": key_lengths}
    return cuda_decode.attention(q, k, v, causal=causal, **settings)
