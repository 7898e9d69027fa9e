"""The CUDA kernels, emulated on NumPy arrays, against the float64 reference: every dtype, awkward sizes and layouts.

What is registered as "cuda" is walked; the cases are those of the operation's workload, and the same with sizes that
allow packs of 16 bytes: all of them in float32, half in each 16-bit type, whose sources are the same. Threads act in
ascending and in descending order by turns.
"""

from __future__ import annotations

import re

import minilm_kernels
import numpy as np
import pytest
from awkward import wider
from minilm_kernels import registry
from minilm_kernels.adamw import cuda as adamw_cuda
from minilm_kernels.add_bias import cuda as add_bias_cuda
from minilm_kernels.bench.checking import cases, check
from minilm_kernels.bench.workload import workload, workloads
from minilm_kernels.column_sums import cuda as column_sums_cuda
from minilm_kernels.cross_entropy import cuda as cross_entropy_cuda
from minilm_kernels.cuda.launching import DTYPES
from minilm_kernels.dropout import cuda as dropout_cuda
from minilm_kernels.embedding import cuda as embedding_cuda
from minilm_kernels.global_norm import cuda as global_norm_cuda
from minilm_kernels.lamb import cuda as lamb_cuda
from minilm_kernels.layer_norm import cuda as norm_cuda
from minilm_kernels.recording import recording
from minilm_kernels.rotary import cuda as rotary_cuda

FOUND = [
    pytest.param(name, mode, dtype, id=f"{operation}-{dtype}")
    for name, found in workloads().items()
    if name != "attention"  # has tests of its own
    for mode, operation in found.passes().items()
    for entry in registry.implementations(operation)
    if entry.name == "cuda"
    for dtype in sorted(entry.dtypes or DTYPES)
]


@pytest.fixture
def numpy_arrays_for_cuda(monkeypatch):
    """The registry takes NumPy arrays for a GPU's, so that implementations for CUDA run on them."""
    registry._candidates.cache_clear()
    monkeypatch.setattr(registry, "device_of", lambda array: "cuda")
    monkeypatch.setattr(registry, "_check_together", lambda *args: None)
    yield
    registry._candidates.cache_clear()


@pytest.mark.usefixtures("numpy_arrays_for_cuda")
@pytest.mark.parametrize(("name", "mode", "dtype"), FOUND)
def test_awkward_cases(emulated, name, mode, dtype):
    found = workload(name)
    checked = 0
    share = {"float16": slice(0, None, 2), "bfloat16": slice(1, None, 2)}.get(dtype, slice(None))
    for number, case in enumerate(list(cases(found))[share]):
        with emulated(descending=number % 2 == 1) as emulator:
            for each in (case, wider(found, case)):
                outcome = check(found, mode, "cuda", dtype, each)
                assert outcome == "right" or outcome.startswith("refused: "), f"{each}: {outcome}"
            checked += len(emulator.launches)
    assert checked > 0


def test_every_hot_operation_has_a_cuda_kernel():
    there = {re.sub("-.*", "", param.id) for param in FOUND}
    both_ways = (
        "layer_norm rms_norm add_layer_norm add_rms_norm gelu swiglu rotary cross_entropy linear_cross_entropy softmax "
        "log_softmax lstm_cell gru_cell elementwise"
    )
    one_way = (
        "cross_entropy_with_gradient embedding_backward adamw lamb global_norm dropout quantize dequantize add_bias "
        "quantized_matmul"
    )
    rest = "column_sums"
    assert there == {
        *both_ways.split(),
        *(f"{name}_backward" for name in both_ways.split()),
        *one_way.split(),
        *rest.split(),
    }


@pytest.mark.parametrize(("size", "p"), [(1, 0.5), (7, 0.1), (1030, 0.3), (64, 1.0)])
def test_dropout_drops_the_same_elements(emulated, size, p):
    x, settings = np.ones(size, np.float16), {"p": p, "seed": 2**63 + 5, "offset": 2**40 + 1}
    with emulated():
        y = dropout_cuda.dropout(x, **settings)
    np.testing.assert_array_equal(y, minilm_kernels.dropout(x, **settings, implementation="reference").astype(x.dtype))


def test_dropout_reads_its_seed_where_it_lies(emulated):
    x, seed = np.ones(1030, np.float32), np.array(2**63 + 5, np.uint64)
    found = []
    with emulated():
        for number in (2**63 + 5, 2**40 + 1):
            seed[...] = number
            by_value, by_address = (dropout_cuda.dropout(x, p=0.3, seed=s, offset=3) for s in (number, seed))
            np.testing.assert_array_equal(by_address, by_value)
            expected = minilm_kernels.dropout(x, p=0.3, seed=number, offset=3, implementation="reference")
            np.testing.assert_array_equal(by_address, expected)
            found.append(by_address)
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_with_gaps_between_their_rows_are_read_in_place(emulated, rng, dtype):
    wide = rng.standard_normal((5, 72)).astype(dtype)
    logits, targets, g = wide[:, :67], np.arange(5) * 13, rng.standard_normal(5).astype(np.float32)
    settings = {"ignore_index": -100, "label_smoothing": 0.1}
    found = []
    with emulated():
        for x in (logits, logits.copy()):
            losses, logsumexp = cross_entropy_cuda.cross_entropy(x, targets, **settings)
            dlogits = cross_entropy_cuda.cross_entropy_backward(x, g, targets, logsumexp, **settings)
            assert dlogits.strides == x.strides
            found.append([losses, logsumexp, dlogits])
    expected = minilm_kernels.cross_entropy(logits.astype(np.float64), targets, label_smoothing=0.1)
    for array, other in zip(*found):
        np.testing.assert_allclose(array.astype(float), other.astype(float), rtol=0.01, atol=1e-5)
    np.testing.assert_allclose(found[0][0], expected[0], rtol=1e-5)


@pytest.mark.parametrize("columns", [32, 10])
def test_rotary_takes_float32_tables_beside_16_bits(emulated, rng, columns):
    angles = rng.standard_normal((5, columns // 2))
    x, tables = rng.standard_normal((2, 3, 5, columns)).astype("bfloat16"), (np.cos(angles), np.sin(angles))
    with emulated():
        y = rotary_cuda.rotary(x, *(table.astype(np.float32) for table in tables), interleaved=False)
    exact = minilm_kernels.rotary(x.astype(np.float64), *tables, implementation="reference")
    np.testing.assert_allclose(y.astype(np.float64), exact, rtol=2.0**-8, atol=1e-6)


@pytest.mark.parametrize("columns", [64, 67, 71, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_and_sums_of_rows_with_gaps_between_them(emulated, rng, dtype, columns):
    wide = np.full((70, 80), 7, dtype)
    x, gaps, bias = wide[:, 8 : 8 + columns], wide[:, 8 + columns :], rng.standard_normal(columns).astype(dtype)
    x[...] = rng.standard_normal(x.shape)
    alone = x.copy()
    for descending in (False, True):
        with emulated(descending=descending):
            gaps[...] = np.nan  # is not used
            assert column_sums_cuda.column_sums(x).tobytes() == column_sums_cuda.column_sums(alone).tobytes()
            gaps[...] = 7  # is not changed
            assert add_bias_cuda.add_bias(x, bias) is x
            np.testing.assert_array_equal(x, add_bias_cuda.add_bias(alone, bias))
            assert (wide[:, :8] == 7).all()
            assert (gaps == 7).all()


def test_a_wrong_target_gives_nan(emulated, rng):
    logits = rng.standard_normal((5, 70)).astype(np.float32)
    targets, g = np.array([3, 70, -100, -1, 69]), np.ones(5, np.float32)
    settings = {"ignore_index": -100, "label_smoothing": 0.1}
    with emulated():
        losses, logsumexp = cross_entropy_cuda.cross_entropy(logits, targets, **settings)
        dlogits = cross_entropy_cuda.cross_entropy_backward(logits, g, targets, logsumexp, **settings)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False, True, False])
    np.testing.assert_array_equal(np.isnan(dlogits).all(axis=1), [False, True, False, True, False])
    assert not dlogits[2].any()


def test_a_wrong_index_gives_nan(emulated):
    out = np.zeros((4, 3), np.float32)
    with emulated():
        embedding_cuda.embedding_backward(np.ones((4, 3), np.float32), np.array([4, 1, -7, 1]), out)
    np.testing.assert_array_equal(out[:, 0], [np.nan, 2, 0, np.nan])


def test_the_same_bits_in_any_order_of_threads(emulated, rng):
    x, g = (rng.standard_normal((70, 96)).astype(np.float32) for _ in range(2))
    indices = rng.integers(0, 5, 70)
    found = []
    for descending in (False, True):
        with emulated(descending=descending):
            y, mean, rstd = norm_cuda.layer_norm(x, x[0], x[1], eps=1e-5)
            gradients = norm_cuda.layer_norm_backward(x, g, x[0], mean, rstd, needs=(True, True, True))
            table = embedding_cuda.embedding_backward(g, indices, np.zeros((5, 96), np.float32))
            norm = global_norm_cuda.norm_on_card([x, g, x[:3]])
        found.append([array.tobytes() for array in (y, mean, rstd, *gradients, table, norm)])
    assert found[0] == found[1]


STEPS = [
    pytest.param(adamw_cuda, "adamw", {"decoupled": True}, ["adamw"], id="adamw"),
    pytest.param(adamw_cuda, "adamw", {"decoupled": False}, ["adamw"], id="adam"),
    pytest.param(
        *(lamb_cuda, "lamb", {"adapt": True, "max_weight_norm": 2.0}, ["lamb_means", "lamb_ratios", "lamb_move"]),
        id="lamb",
    ),
    pytest.param(
        *(lamb_cuda, "lamb", {"adapt": False, "max_weight_norm": None}, ["lamb_means", "lamb_move"]), id="lamb-alike"
    ),
]


def _state():
    """Parameters, gradients and means of four arrays, one of them empty and two longer than a chunk."""
    random = np.random.default_rng(0)
    return [[np.abs(random.standard_normal(size)).astype(np.float32) for size in (9000, 0, 3, 20_000)] for _ in "pgmv"]


def _bits(lists) -> list[bytes]:
    return [array.tobytes() for arrays in lists for array in arrays]


@pytest.mark.parametrize(("module", "name", "settings", "launches"), STEPS)
def test_a_step_takes_its_scalars_from_the_card(emulated, module, name, settings, launches):
    numbers = {"lr": 0.1, "step": 7.0, "grad_scale": 0.5}
    there = {name: np.array(number) for name, number in numbers.items()}
    settings = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, **settings}
    known, read, left_out = _state(), _state(), _state()
    with emulated() as emulator:
        getattr(module, name)(*known, **numbers, **settings)
        assert emulator.launches == launches
    with emulated(descending=True) as emulator:
        module.step_on_card(*read, **there, **settings)
        assert emulator.launches == [f"{name}_scalars", *launches]
        module.step_on_card(*left_out, **{**there, "grad_scale": np.array(np.nan)}, **settings)
    assert _bits(read) == _bits(known)
    assert _bits(left_out) == _bits(_state()) != _bits(known)


def test_a_recorded_graph_keeps_the_tables_that_it_reads(emulated):
    arrays = _state()[0]
    with emulated(), recording() as needed:
        global_norm_cuda.norm_on_card(arrays)
    (table,) = needed
    assert table.addresses.tolist() == [[array.ctypes.data for array in arrays]]
    assert table.first_chunk.tolist() == [0, 2, 2, 3, 6]
