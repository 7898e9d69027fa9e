"""linear_cross_entropy, and cross-entropy with its gradient in one pass: against the float64 reference, and unfused."""

from __future__ import annotations

import tracemalloc

import fake_cupy
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_with_gradient,
    implementations,
    linear_cross_entropy,
    linear_cross_entropy_backward,
)
from minilm_kernels.chunks import SERIAL_BELOW
from minilm_kernels.linear_cross_entropy import cuda, rows_of_chunk

from minilm import backend

CPU = [entry.name for entry in implementations("linear_cross_entropy", device="cpu")]
ONE_PASS = [entry.name for entry in implementations("cross_entropy_with_gradient", device="cpu")]


def arrays(N, C, V, seed=0, ignored=0.2, dtype=np.float32):
    """g, x, weight, targets (some of them -100) and bias."""
    random = np.random.default_rng(seed)
    g, x, weight, bias = (random.standard_normal(shape).astype(dtype) for shape in (N, (N, C), (V, C), V))
    return g, x, weight, np.where(random.random(N) < ignored, -100, random.integers(0, V, N)), bias


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=30, deadline=None)
@given(
    N=st.integers(0, 9),
    C=st.sampled_from([1, 3, 17]),
    V=st.sampled_from([1, 2, 65, 5000]),
    biased=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    chunk=st.sampled_from([None, 1, 3, 9]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, N, C, V, biased, smoothing, chunk, layout, seed, error_law, laid_out):
    g, x, weight, targets, bias = (laid_out(array, layout) for array in arrays(N, C, V, seed))
    # The settings' arrays are rounded in the reference's float64 run as well: they are the same numbers.
    run = {"implementation": implementation, "label_smoothing": smoothing, "chunk": chunk, "size": 8 * C}
    bias = bias if biased else None
    error_law(linear_cross_entropy, x, weight, targets, **run, bias=None)
    mine = linear_cross_entropy(
        x, weight, targets, bias=bias, g=g, label_smoothing=smoothing, chunk=chunk, implementation=implementation
    )
    double = [None if a is None else a.astype(np.float64) for a in (x, weight, bias, g)]
    exact = linear_cross_entropy(
        *double[:2], targets, bias=double[2], g=double[3], label_smoothing=smoothing, implementation="reference"
    )
    again = linear_cross_entropy_backward(
        g, x, weight, targets, bias=bias, label_smoothing=smoothing, chunk=chunk, implementation=implementation
    )
    for m, e in zip((*mine, *again), (*exact, *exact[2:])):
        assert (m is None) == (e is None)
        if m is not None:
            assert m.shape == e.shape
            assert m.dtype == np.float32
            np.testing.assert_allclose(m, e, rtol=2e-5, atol=2e-5 * max(np.abs(e).max(initial=0), 1))


@pytest.mark.parametrize("implementation", ONE_PASS)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 9),
    classes=st.sampled_from([1, 2, 7, 65, 300]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_pass_obeys_the_error_law(implementation, rows, classes, smoothing, layout, seed, error_law, laid_out):
    g, _, _, targets, _ = arrays(rows, 1, classes, seed)
    logits = laid_out((3 * np.random.default_rng(seed).standard_normal((rows, classes))).astype(np.float32), layout)
    run = {"implementation": implementation, "label_smoothing": smoothing, "size": np.abs(logits).max(initial=1)}
    error_law(cross_entropy_with_gradient, logits, targets, laid_out(g, layout), **run)


@pytest.mark.parametrize("implementation", ONE_PASS)
def test_one_pass_is_the_two_passes_and_may_overwrite(implementation):
    g, _, _, targets, _ = arrays(70, 1, SERIAL_BELOW // 64)
    logits = np.random.default_rng(0).standard_normal((70, SERIAL_BELOW // 64), dtype=np.float32)
    logits[0, 3], logits[1, 2] = -np.inf, np.nan
    targets[:2] = 1
    losses, logsumexp = cross_entropy(logits, targets, label_smoothing=0.0)
    dlogits = cross_entropy_backward(g, logits, targets, logsumexp)
    expected = losses, logsumexp, dlogits
    found = cross_entropy_with_gradient(logits, targets, g, implementation=implementation)
    for mine, theirs in zip(found, expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    found = cross_entropy_with_gradient(logits, targets, g, overwrite=True, implementation=implementation)
    assert found[2] is logits
    np.testing.assert_allclose(logits, dlogits, rtol=1e-5, atol=1e-6)


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    _, x, weight, targets, bias = arrays(300, 33, 700)
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    logits = torch.nn.functional.linear(*leaves)
    theirs = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), label_smoothing=0.1)
    theirs.backward()
    g = np.full(300, 1 / (targets != -100).sum(), np.float32)
    losses, _, *gradients = linear_cross_entropy(x, weight, targets, bias=bias, g=g, label_smoothing=0.1, chunk=128)
    np.testing.assert_allclose(losses @ g, theirs.item(), rtol=1e-5)
    for mine, leaf in zip(gradients, leaves):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_logits_never_exist_whole():
    g, x, weight, targets, _ = arrays(2048, 16, 4096)
    linear_cross_entropy(x, weight, targets, g=g, chunk=128)  # compiles
    tracemalloc.start()
    linear_cross_entropy(x, weight, targets, g=g, chunk=128)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.25 * 4 * 2048 * 4096  # bytes of the logits; unfused there are two such arrays


def test_same_bits_on_any_number_of_threads(same_bits):
    g, _, _, targets, _ = arrays(70, 1, 1001)
    logits = np.random.default_rng(0).standard_normal((70, 1001), dtype=np.float32)
    same_bits(lambda: cross_entropy_with_gradient(logits, targets, g))


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("wrong", [5, -1, 2**40])
def test_a_target_out_of_range_is_named_by_its_row_among_all(implementation, wrong):
    g, x, weight, targets, _ = arrays(9, 3, 5)
    targets[7] = wrong
    message = rf"targets\[7\] is {wrong}; expected a class in \[0, 5\)"
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(x, weight, targets, chunk=2, implementation=implementation)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy_backward(g, x, weight, targets, chunk=2, implementation=implementation)
    with pytest.raises(ValueError, match=message):
        cross_entropy_with_gradient(np.zeros((9, 5), np.float32), targets, g)


def test_errors_say_what_to_do():
    g, x, weight, targets, bias = arrays(4, 3, 5)
    with pytest.raises(ValueError, match=r"weight has shape \(3, 5\); expected \(3, 3\)"):
        linear_cross_entropy(x, weight.T, targets)
    with pytest.raises(ValueError, match=r"bias has shape \(4,\); expected \(5,\)"):
        linear_cross_entropy(x, weight, targets, bias=bias[:4])
    with pytest.raises(ValueError, match="chunk is 0; expected a number of rows, 1 or more, or None"):
        linear_cross_entropy(x, weight, targets, chunk=0)
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(4,\)"):
        linear_cross_entropy_backward(g[:3], x, weight, targets)
    with pytest.raises(TypeError, match="targets is float32; expected integers"):
        linear_cross_entropy(x, weight, targets.astype(np.float32))
    with pytest.raises(ValueError, match="label_smoothing is 2; expected a share"):
        linear_cross_entropy(x, weight, targets, label_smoothing=2)
    with pytest.raises(ValueError, match="must be C-contiguous and writeable: copy them"):
        cross_entropy_with_gradient(np.zeros((5, 4), np.float32).T, targets, g, overwrite=True)


# For CUDA: the kernels in the emulator, the products by the stand-in's cuBLAS, both at the addresses of one array.


def on_cuda(*values, g=None, bias=None, label_smoothing=0.0, chunk=None):
    """What the implementation for CUDA makes of arrays of the host, on the host again."""
    import cupy

    there = lambda x: x if x is None else cupy.asarray(x)
    settings = {"ignore_index": -100, "label_smoothing": label_smoothing, "chunk": chunk}
    args, settings["g"], settings["bias"] = [there(x) for x in values], there(g), there(bias)
    fake_cupy.transfers.fetched = fake_cupy.transfers.sent = 0
    found = cuda.linear_cross_entropy(*args, **settings)
    assert fake_cupy.transfers.fetched == fake_cupy.transfers.sent == 0  # so that it can be recorded
    return [x if x is None else x.get() for x in found]


@pytest.mark.parametrize("chunk", [None, 9, 4, 1])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_on_cuda_obeys_the_error_law(emulated, cuda_standin, dtype, biased, chunk):
    for V, smoothing in ((65, 0.1), (8, 0.0), (1, 0.0)):
        g, *values, bias = arrays(9, 17, V, dtype=dtype)
        settings = {"bias": bias if biased else None, "g": g.astype(np.float32), "label_smoothing": smoothing}
        plain = linear_cross_entropy(*values, **settings, implementation="reference")
        double = {name: x.astype(np.float64) if isinstance(x, np.ndarray) else x for name, x in settings.items()}
        widened = *(x.astype(np.float64) for x in values[:2]), values[2]
        exact = linear_cross_entropy(*widened, **double, implementation="reference")
        with emulated():
            found = on_cuda(*values, **settings, chunk=chunk)
            losses = on_cuda(*values, **{**settings, "g": None}, chunk=chunk)
        for number, (m, p, e) in enumerate(zip(found, plain, exact)):
            assert (m is None) == (e is None)
            if m is not None:
                assert m.dtype == (np.float32 if number < 2 else dtype)
                eps, size = float(ml_dtypes.finfo(dtype).eps), max(np.abs(e).max(), 17 if number < 2 else 1)
                assert np.abs(m - e).max() <= 2 * np.abs(p - e).max() + 4 * eps * size, number
        assert [x.tobytes() for x in losses] == [x.tobytes() for x in found[:2]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_on_cuda_sums_over_chunks_are_rounded_once(emulated, cuda_standin, dtype):
    N = 301
    x, weight, bias = np.ones((N, 1), dtype), np.zeros((2, 1), dtype), np.zeros(2, dtype)
    with emulated():
        *_, dweight, dbias = on_cuda(x, weight, np.zeros(N, int), bias=bias, g=np.ones(N, np.float32), chunk=7)
    expected = np.array([-N / 2, N / 2]).astype(dtype)  # added in bfloat16, halves would get no further than 128
    np.testing.assert_array_equal(dweight[:, 0], expected)
    np.testing.assert_array_equal(dbias, expected)


def test_on_cuda_nothing_gives_nothing(emulated, cuda_standin):
    g, *values, bias = arrays(0, 3, 5, dtype="bfloat16")
    with emulated():
        losses, _, dx, dweight, dbias = on_cuda(*values, bias=bias, g=g.astype(np.float32))
    assert losses.shape == (0,)
    assert dx.shape == (0, 3)
    assert dweight.tolist() == np.zeros((5, 3)).tolist()
    assert dbias.tolist() == [0] * 5


def test_on_cuda_a_wrong_target_makes_its_row_nan(emulated, cuda_standin):
    g, x, weight, targets, _ = arrays(6, 3, 5, ignored=0)
    targets[4] = 5
    with emulated():
        losses, _, dx, dweight, _ = on_cuda(x, weight, targets, g=g, chunk=3)
    assert np.flatnonzero(np.isnan(losses)).tolist() == [4]
    assert np.flatnonzero(np.isnan(dx).any(axis=1)).tolist() == [4]
    assert np.isnan(dweight).all()


def test_on_cuda_the_logits_never_exist_whole(emulated, cuda_standin):
    g, x, weight, targets, _ = arrays(256, 4, 4096)  # against which the emulator's own memory is little
    with emulated():
        on_cuda(x, weight, targets, g=g, chunk=16)  # compiles
        fake_cupy.cublas.calls.clear()
        tracemalloc.start()
        on_cuda(x, weight, targets, g=g, chunk=16)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(fake_cupy.cublas.calls) == 3 * 256 // 16
    assert peak < 0.25 * g.itemsize * 256 * 4096


def test_rows_of_a_chunk():
    x, weight = np.zeros((10_000, 1), np.float16), np.zeros((50_257, 1), np.float16)
    rows = lambda chunk=None, x=x, weight=weight, **most: rows_of_chunk(chunk, x, weight, **most)
    assert rows(logits_bytes=2**29) == 5000  # even, where 5341 would fit
    assert rows(logits_bytes=2**26, most=1024) == 667
    assert rows(logits_bytes=2**20) == 127
    assert rows(weight=weight[:9], logits_bytes=2**26, most=1024) == 1000
    assert rows(7, logits_bytes=2**29) == 7
    assert rows(20_000, logits_bytes=2**29) == 10_000
    assert rows(x=x[:0], logits_bytes=2**29) == 0


def recorded_in_a_graph():
    g, x, weight, targets, bias = arrays(64, 32, 1001, dtype=np.float16)
    settings = {"ignore_index": -100, "label_smoothing": 0.1, "chunk": 24}
    loss = lambda *arrays: cuda.linear_cross_entropy(*arrays[:3], g=arrays[3], bias=arrays[4], **settings)
    graph = backend.Graph(loss, "cuda")
    inputs = x, weight, targets, g.astype(np.float32), bias
    found = [[backend.to_numpy(part) for part in graph(*inputs)] for _ in range(3)]
    assert graph.is_recorded, graph.refused
    for first, last in zip(found[0], found[-1]):
        np.testing.assert_allclose(last.astype(float), first.astype(float), rtol=1e-2, atol=1e-2)


def test_on_cuda_is_recorded_in_a_graph(emulated, cuda_standin):
    with emulated():
        recorded_in_a_graph()


@pytest.mark.gpu
def test_is_recorded_in_a_graph_on_a_card():
    recorded_in_a_graph()
