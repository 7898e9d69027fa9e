"""What may change or hide scores in attention: each setting, and many at once, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import attention, attention_backward, dropout, implementations

FUSED = [entry.name for entry in implementations("attention_backward", device="cpu") if entry.name != "reference"]
LENGTHS = [1, 2, 5, 6, 7, 17, 47, 48, 49, 95, 97, 130]


def _arrays(random, B, H, Hk, T, S, D):
    shapes = [(B, H, T, D), (B, H, T, D), (B, Hk, S, D), (B, Hk, S, D)]
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _double(x):
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x


def _both_passes(arrays, options, implementation):
    g, q, k, v = arrays
    out, logsumexp = attention(q, k, v, implementation=implementation, **options)
    gradients = attention_backward(
        g, q, k, v, out, logsumexp, bias_gradient="bias" in options, implementation=implementation, **options
    )
    return {
        "out": out,
        "logsumexp": np.where(np.isinf(logsumexp), 0, logsumexp),
        **dict(zip(("dq", "dk", "dv", "dbias"), gradients)),
    }


def _agree(arrays, options, implementation):
    mine = _both_passes(arrays, options, implementation)
    exact = _both_passes([_double(x) for x in arrays], {name: _double(x) for name, x in options.items()}, "reference")
    # Gradients of scores are differences: their rounding is that of the largest of their terms.
    g, q, k, v = (np.abs(x).max(initial=0) for x in arrays)
    scale = abs(options.get("scale") or arrays[1].shape[3] ** -0.5)
    terms = g * v * arrays[1].shape[3] / (1 - options.get("dropout_p", 0))
    size = {"dq": terms * k * scale, "dk": terms * q * scale, "dv": g, "dbias": terms}
    # A distance times a slope makes scores large, and their rounding is in every weight.
    farthest = np.max(options.get("alibi_slopes", 0.0)) * max(arrays[1].shape[2], arrays[2].shape[2])
    for name, wanted in exact.items():
        assert mine[name].dtype == np.float32
        error = np.abs(mine[name] - wanted).max(initial=0)
        allowed = 2e-6 * max(1, farthest / 8) * max(np.abs(wanted).max(initial=0), size.get(name, 0))
        assert error <= allowed, f"{name}: error {error:.2g}, allowed {allowed:.2g}"


def _masking_bias(random, shape):
    return np.where(random.random(shape) < 0.4, -np.inf, random.standard_normal(shape)).astype(np.float32)


OPTIONS = {
    "window": lambda random, B, H, T, S: {"window": int(random.integers(1, 60))},
    "two-sided window": lambda random, B, H, T, S: {
        "window": (int(random.integers(0, 60)), int(random.integers(0, 60)))
    },
    "open window": lambda random, B, H, T, S: {"window": [(None, 3), (70, None)][random.integers(2)]},
    "causal window": lambda random, B, H, T, S: {"window": int(random.integers(1, 60)), "causal": True},
    "soft cap": lambda random, B, H, T, S: {"soft_cap": float(random.uniform(0.3, 20))},
    "bias": lambda random, B, H, T, S: {"bias": random.standard_normal((B, H, T, S), np.float32)},
    "shared bias": lambda random, B, H, T, S: {"bias": random.standard_normal((1, H, T, S), np.float32)},
    "bias of heads alone": lambda random, B, H, T, S: {"bias": random.standard_normal((B, 1, 1, S), np.float32)},
    "bias of all": lambda random, B, H, T, S: {"bias": random.standard_normal((T, S), np.float32), "causal": True},
    "masking bias": lambda random, B, H, T, S: {"bias": _masking_bias(random, (B, 1, T, S))},
    "alibi": lambda random, B, H, T, S: {"alibi_slopes": random.random(H, np.float32), "causal": True},
    "alibi of rows": lambda random, B, H, T, S: {"alibi_slopes": random.random((B, H), np.float32)},
    "dropout": lambda random, B, H, T, S: {"dropout_p": 0.3, "seed": int(random.integers(2**63))},
    "everything": lambda random, B, H, T, S: {
        "causal": True,
        "window": 40,
        "soft_cap": 3.0,
        "bias": random.standard_normal((1, H, T, S), np.float32),
        "alibi_slopes": random.random(H, np.float32),
        "key_lengths": random.integers(0, S + 1, B),
        "dropout_p": 0.2,
        "seed": 7,
    },
}


@pytest.mark.parametrize("implementation", FUSED)
@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=12, deadline=None)
@given(
    B=st.integers(1, 2),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    T=st.sampled_from(LENGTHS),
    S=st.sampled_from(LENGTHS),
    D=st.sampled_from([1, 16, 33]),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_setting(implementation, name, B, heads, T, S, D, seed):
    random = np.random.default_rng(seed)
    arrays = _arrays(random, B, *heads, T, S, D)
    _agree(arrays, OPTIONS[name](random, B, heads[0], T, S), implementation)


@pytest.mark.parametrize("implementation", FUSED)
@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 5, 48, 49, 70]), min_size=1, max_size=4).filter(sum),
    keys=st.none() | st.lists(st.sampled_from([0, 1, 5, 48, 49, 70]), min_size=4, max_size=4),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 20]),
    alibi=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_packed_sequences(implementation, lengths, keys, causal, window, alibi, seed):
    random = np.random.default_rng(seed)
    keys = lengths if keys is None or not sum(keys[: len(lengths)]) else keys[: len(lengths)]
    starts, key_starts = (np.concatenate([[0], np.cumsum(x)]) for x in (lengths, keys))
    _, q, k, v = arrays = _arrays(random, 1, 4, 2, starts[-1], key_starts[-1], 16)
    options = {"causal": causal, "window": window}
    if alibi:
        options["alibi_slopes"] = random.random(4, np.float32)
    packed = {"cu_seqlens": starts, "cu_seqlens_k": key_starts, **options}
    _agree(arrays, packed, implementation)
    out, _ = attention(q, k, v, implementation=implementation, **packed)
    for a, b, c, d in zip(starts, starts[1:], key_starts, key_starts[1:]):
        alone, _ = attention(q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], implementation=implementation, **options)
        np.testing.assert_allclose(out[:, :, a:b], alone, rtol=1e-5, atol=1e-6)


def test_weights_are_dropped_as_dropout_drops_them():
    """With v the unit matrix the output shows the weights."""
    random = np.random.default_rng(0)
    k = random.standard_normal((2, 3, 49, 49), dtype=np.float32)
    q, v = (
        random.standard_normal((2, 3, 33, 49), dtype=np.float32),
        np.broadcast_to(np.eye(49, dtype=np.float32), k.shape),
    )
    whole, _ = attention(q, k, v)
    dropped, _ = attention(q, k, v, dropout_p=0.25, seed=11)
    kept = dropout(np.ones((2, 3, 33, 52), np.float32), p=0.25, seed=11)[..., :49]
    np.testing.assert_allclose(dropped, whole * kept, rtol=1e-5, atol=1e-7)
    assert 0.2 < (dropped == 0).mean() < 0.3


def test_a_window_sees_what_it_says():
    v = np.eye(10, dtype=np.float32)[None, None]
    q = np.zeros((1, 1, 10, 10), np.float32)
    weights, _ = attention(q, q, v, window=3, causal=True)
    np.testing.assert_array_equal(weights[0, 0] > 0, np.tri(10, dtype=bool) & ~np.tri(10, k=-3, dtype=bool))
    weights, _ = attention(q, q, v, window=(0, 2))
    np.testing.assert_array_equal(weights[0, 0] > 0, np.tri(10, k=2, dtype=bool) & ~np.tri(10, k=-1, dtype=bool))


@pytest.mark.parametrize("implementation", FUSED)
@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "torn"])
def test_settings_may_lie_in_memory_as_they_like(implementation, layout, laid_out):
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((2, 4, length, 8), dtype=np.float32) for length in (3, 20, 20))
    bias, slopes = (random.standard_normal(shape, dtype=np.float32) for shape in ((2, 1, 3, 20), (2, 4)))

    def lying(array):
        if layout != "torn":
            return laid_out(array, layout)
        fields = np.zeros(array.shape, [("byte", np.uint8), ("number", array.dtype)])
        fields["number"] = array
        return fields["number"]

    for name, array in (("bias", bias), ("alibi_slopes", slopes), ("key_lengths", np.array([7, 20]))):
        expected = attention(q, k, v, implementation=implementation, **{name: array})
        found = attention(q, k, v, implementation=implementation, **{name: lying(array)})
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", FUSED)
def test_settings_give_the_same_bits_on_any_number_of_threads(implementation, same_bits):
    random = np.random.default_rng(3)
    g, q, k, v = _arrays(random, 2, 6, 2, 130, 200, 32)
    options = OPTIONS["everything"](random, 2, 6, 130, 200)
    kept = attention(q, k, v, **options)
    same_bits(lambda: attention(q, k, v, implementation=implementation, **options))
    same_bits(
        lambda: attention_backward(g, q, k, v, *kept, bias_gradient=True, implementation=implementation, **options)
    )


def test_gradients_go_into_the_arrays_given():
    random = np.random.default_rng(1)
    g, q, k, v = _arrays(random, 2, 3, 3, 20, 20, 8)
    kept = attention(q, k, v, causal=True)
    expected = attention_backward(g, q, k, v, *kept, causal=True)
    for implementation in ("reference", *FUSED):
        packed = np.full((2, 20, 3, 3, 8), np.nan, np.float32)
        into = tuple(packed[:, :, i].swapaxes(1, 2) for i in range(3))
        found = attention_backward(g, q, k, v, *kept, causal=True, into=into, implementation=implementation)
        for mine, back, wanted in zip(into, found, expected):
            assert np.shares_memory(mine, back)
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-6)


def test_settings_that_do_not_fit_are_refused():
    q, k, v = np.zeros((3, 2, 4, 5, 8), np.float32)
    for options, message in [
        ({"window": 0}, "window is 0; expected a number of keys"),
        ({"window": (1, 2, 3)}, r"window is \(1, 2, 3\)"),
        ({"window": (-1, 0)}, "window is"),
        ({"soft_cap": 0}, "soft_cap is 0"),
        ({"dropout_p": 1.0}, "dropout_p is 1.0"),
        ({"dropout_p": 0.1, "seed": -1}, "seed is -1"),
        ({"bias": np.zeros((3, 5), np.float32)}, r"bias has shape \(3, 5\); expected one that broadcasts"),
        ({"alibi_slopes": [1, 2, 3]}, r"alibi_slopes has shape \(3,\); expected \(4,\)"),
        ({"cu_seqlens": [0, 5]}, "q has B = 2"),
        ({"cu_seqlens_k": [0, 5]}, "without cu_seqlens"),
    ]:
        with pytest.raises(ValueError, match=message):
            attention(q, k, v, **options)
    with pytest.raises(TypeError, match="bias is float64; expected float32"):
        attention(q, k, v, bias=np.zeros((5, 5)))
    one = q[:1], k[:1], v[:1]
    for starts, message in [
        ([0, 6], "expected numbers from 0"),
        ([0, 3, 2, 5], "in order"),
        ([5], "n sequences begin"),
    ]:
        with pytest.raises(ValueError, match=message):
            attention(*one, cu_seqlens=starts)
    with pytest.raises(ValueError, match="names 1 sequences and cu_seqlens_k 2"):
        attention(*one, cu_seqlens=[0, 5], cu_seqlens_k=[0, 2, 5])
    with pytest.raises(ValueError, match="give cu_seqlens_k"):
        attention(q[:1, :, :3], k[:1], v[:1], cu_seqlens=[0, 3])
    out, logsumexp = attention(q, k, v)
    with pytest.raises(ValueError, match="there is no bias"):
        attention_backward(q, q, k, v, out, logsumexp, bias_gradient=True)
    with pytest.raises(ValueError, match="into holds 2 arrays"):
        attention_backward(q, q, k, v, out, logsumexp, into=(q, k))
