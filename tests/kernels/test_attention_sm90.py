"""Attention's kernel for Hopper, run by the emulator, and on a card where there is one."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.attention import attention
from minilm_kernels.attention.sm90 import forward as sm90
from minilm_kernels.attention.visible import row_ranges
from minilm_kernels.cuda import Program

BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
PLAIN = {
    "causal": False, "window": None, "soft_cap": None, "bias": None, "alibi_slopes": None, "key_lengths": None,
    "cu_seqlens": None, "cu_seqlens_k": None, "dropout_p": 0.0, "seed": 0, "score_mod": None, "block_mask": None,
    "scale": 0.125,
}  # fmt: skip


def inputs(rng, B, H, Hk, T, S, D, dtype):
    """q, k and v laid out as a projection leaves them: heads side by side in a row."""
    shapes = (B, T, H, D), (B, S, Hk, D), (B, S, Hk, D)
    return [rng.standard_normal(shape).astype(dtype).swapaxes(1, 2) for shape in shapes]


def exact_and_plain(q, k, v, **settings):
    """(out, logsumexp) in float64, and out as plain array code has it whose scores and weights have 16 bits."""
    wide = [x.astype(np.float64) for x in (q, k, v)]
    out, logsumexp = attention(*wide, implementation="reference", **settings)
    masks = {"causal": False, "window": None, "key_lengths": None} | settings
    scale = masks.pop("scale", 1 / math.sqrt(q.shape[3]))
    first, stop, _ = row_ranges(q, k.shape[2], cu_seqlens=None, cu_seqlens_k=None, **masks)
    keys = np.arange(k.shape[2])
    seen = ((keys >= first[..., None]) & (keys < stop[..., None]))[:, None]
    keys, values = (x.repeat(q.shape[1] // k.shape[1], axis=1) for x in wide[1:])
    scores = (wide[0] @ keys.swapaxes(2, 3) * scale).astype(q.dtype).astype(np.float64)
    weights = np.exp(np.where(seen, scores - scores.max(), -np.inf))
    weights /= np.maximum(weights.sum(axis=3, keepdims=True), np.finfo(float).tiny)
    plain = weights.astype(q.dtype).astype(np.float64) @ values
    return out, logsumexp, plain.astype(q.dtype).astype(np.float64)


def holds(mine, q, k, v, **settings):
    """Asserts the error law: at most twice the plain composition's error."""
    out, logsumexp = mine
    exact, exact_logsumexp, plain = exact_and_plain(q, k, v, **settings)
    assert out.shape == q.shape
    assert (out.dtype, logsumexp.dtype) == (q.dtype, np.float32)
    assert np.isfinite(out.astype(np.float64)).all()
    assert np.abs(out.astype(np.float64) - exact).max() <= 2 * np.abs(plain - exact).max() + 1e-6
    np.testing.assert_array_equal(np.isneginf(logsumexp), np.isneginf(exact_logsumexp))
    seen = ~np.isneginf(exact_logsumexp)
    np.testing.assert_allclose(logsumexp[seen], exact_logsumexp[seen], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(out[~seen], 0)


SHAPES = [  # B, H, Hk, T, S, D, dtype, settings: more tiles than the emulator has processors, and tails everywhere
    (1, 2, 1, 300, 300, 128, BF16, {"causal": True}),
    (2, 2, 2, 130, 70, 128, BF16, {"causal": True}),  # the first queries see nothing
    (1, 2, 1, 70, 333, 128, BF16, {"causal": True}),
    (1, 2, 1, 300, 500, 128, BF16, {"window": (60, 30)}),
    (1, 2, 2, 200, 400, 128, BF16, {"causal": True, "window": (150, None)}),
    (3, 1, 1, 130, 300, 128, BF16, {"causal": True, "key_lengths": np.array([0, 17, 290])}),
    (1, 4, 2, 100, 400, 128, F16, {}),
    (3, 1, 1, 20, 300, 128, F16, {"key_lengths": np.array([0, 17, 300]), "scale": 0.3}),
    (2, 3, 1, 200, 200, 64, BF16, {"causal": True}),
    (1, 2, 2, 64, 333, 64, BF16, {}),
    (1, 1, 1, 140, 200, 96, BF16, {}),  # a panel and a half of values
    (1, 1, 1, 140, 200, 80, BF16, {"causal": True}),  # in tiles of 96
    (1, 1, 1, 140, 200, 184, BF16, {}),  # in tiles of 192
    (1, 1, 1, 140, 200, 256, BF16, {"causal": True}),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape[:6])))
def test_against_the_reference(emulated, rng, shape):
    *sizes, settings = shape
    q, k, v = inputs(rng, *sizes)
    first, *others = (emulated_attention(emulated, q, k, v, descending=down, **settings) for down in (False, True))
    holds(first, q, k, v, **settings)
    for other in others:  # the order in which threads come to act doesn't matter
        np.testing.assert_array_equal(first[0].view(np.uint16), other[0].view(np.uint16))
        np.testing.assert_array_equal(first[1], other[1])


def emulated_attention(emulated, q, k, v, descending=False, **settings):
    settings = PLAIN | {"scale": 1 / math.sqrt(q.shape[3])} | settings
    with emulated(capability=90, descending=descending) as emulator:
        assert sm90.limits(q, k, v, **settings) is None
        result = sm90.attention(q, k, v, **settings)
    assert emulator.launches == ["attention_forward"]
    return result


def test_arrays_that_the_copy_engine_can_not_read_are_copied(emulated, rng):
    q, k, v = inputs(rng, 1, 2, 2, 40, 50, 128, BF16)
    wide = np.zeros((*q.shape[:3], 256), BF16)
    wide[..., ::2] = q
    out, _ = emulated_attention(emulated, wide[..., ::2], k, v, causal=True)
    same, _ = emulated_attention(emulated, q, np.ascontiguousarray(k), v, causal=True)
    np.testing.assert_array_equal(out.view(np.uint16), same.view(np.uint16))
    assert out.swapaxes(1, 2).flags.c_contiguous  # merging the heads copies nothing


def test_numbers_that_are_not_finite_are_not_lost(emulated, rng):
    q, k, v = inputs(rng, 1, 1, 1, 20, 30, 128, BF16)
    q[0, 0, 3], k[0, 0, 25] = np.nan, np.inf
    out, _ = emulated_attention(emulated, q, k, v, causal=True)
    out = out.astype(np.float32)
    assert np.isnan(out[0, 0, 3]).all()
    seen = np.arange(20) + 10 >= 25
    assert not np.isfinite(out[0, 0, seen]).any()
    np.testing.assert_array_equal(np.isfinite(out[0, 0, ~seen]).all(axis=1), np.arange(15) != 3)


def test_the_launch_knows_how_much_shared_memory_is_laid_out(emulated, tmp_path):
    source = '#include "tiles.cuh"\nextern "C" __global__ void size(int* bytes) { *bytes = Layout::BYTES; }'
    (tmp_path / "size.cu").write_text(source)
    (tmp_path / "tiles.cuh").write_text((Path(sm90.__file__).parent / "tiles.cuh").read_text())
    macros = {"SCALAR": "f16", "HEAD_SIZE": 96, "KEYS": 80, "CONSUMERS": 3, "STAGES": sm90._STAGES}
    found = np.zeros(1, np.int32)
    with emulated():
        Program(tmp_path / "beside.py", "size.cu", macros).kernel("size")(1, 1, (found,))
    assert found[0] == sm90._shared_bytes(96, 80, 3)
    assert max(sm90._shared_bytes(width, *tile) for width, tile in sm90._TILES.items()) <= 227 * 1024


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"soft_cap": 30.0}, "it has no soft_cap"),
        ({"dropout_p": 0.1, "bias": 1}, "it has no bias, dropout_p"),
        ({"scale": -1.0}, "scales above 0"),
        ({"D": 32}, "head sizes from 40 to 256 in steps of 8, and this one is 32"),
        ({"D": 100}, "this one is 100"),
        ({"T": 1}, "16 queries and more"),
        ({"capability": 80}, "compute capability 9.0"),
        ({"capability": 100}, "compute capability 9.0"),
        ({}, None),
    ],
    ids=str,
)
def test_what_it_does_not_take(emulated, change, reason):
    sizes = {"T": 20, "D": 64, "capability": 90} | change
    q, k = np.zeros((1, 2, sizes["T"], sizes["D"]), BF16), np.zeros((1, 2, 30, sizes["D"]), BF16)
    settings = PLAIN | {name: value for name, value in change.items() if name in PLAIN}
    with emulated(capability=sizes["capability"]):
        found = sm90.limits(q, k, k, **settings)
    assert found is None if reason is None else reason in found


@pytest.fixture
def hopper():
    """CuPy, where its device is a Hopper card; else the test is skipped."""
    cupy = pytest.importorskip("cupy")
    capability = cupy.cuda.Device().compute_capability
    if capability != "90":
        pytest.skip(f"the card's compute capability is {capability}, and the kernel is for 90")
    return cupy


LARGE = [
    (2, 8, 2, 1000, 1000, 128, BF16, {"causal": True}),
    (1, 4, 4, 2048, 4096, 128, F16, {}),
    (2, 4, 4, 777, 2049, 64, BF16, {"window": (300, 20)}),
]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=lambda shape: "-".join(map(str, shape[:6])))
def test_on_a_card(hopper, rng, shape):
    *sizes, settings = shape
    q, k, v = inputs(rng, *sizes)
    on_card = {name: hopper.asarray(x) if isinstance(x, np.ndarray) else x for name, x in settings.items()}
    mine = attention(*map(hopper.asarray, (q, k, v)), implementation="cuda_sm90", **on_card)
    again = attention(*map(hopper.asarray, (q, k, v)), implementation="cuda_sm90", **on_card)
    holds([hopper.asnumpy(x) for x in mine], q, k, v, **settings)
    for first, second in zip(mine, again):
        assert bool((first.view(np.uint8) == second.view(np.uint8)).all())


@pytest.mark.gpu
def test_a_card_of_its_kind_runs_it(hopper, rng, monkeypatch):
    q, k, v = (hopper.asarray(x) for x in inputs(rng, 1, 2, 2, 128, 128, 128, BF16))
    ran = []
    kernel = sm90._kernel
    monkeypatch.setattr(sm90, "_kernel", functools.wraps(kernel)(lambda *args: ran.append(args) or kernel(*args)))
    attention(q, k, v, causal=True)
    assert len(ran) == 1
