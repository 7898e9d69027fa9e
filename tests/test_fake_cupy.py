"""The stand-in for CuPy is as strict as CuPy: what it must refuse, and where it must differ from NumPy."""

from __future__ import annotations

import json
import sys

import fake_cupy
import ml_dtypes
import numpy as np
import pytest
from fake_cupy import record
from minilm_kernels.recording import recording

from minilm import ops

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def x(cuda_standin):
    return cuda_standin.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_what_it_offers_is_what_the_installed_cupy_offers():
    pytest.importorskip("cupy", reason="CuPy, whose functions are on record, is not installed")
    known, found = json.loads(record.API.read_text()), record.recorded()
    if found["version"] != known["version"]:
        pytest.skip(f"CuPy {found['version']} is installed, {known['version']} on record")
    for part in ("functions", "ufuncs"):
        assert found[part] == known[part]


REFUSED = {
    "NumPy's array on the right": lambda cupy, x: x + np.ones(3),
    "NumPy's array on the left": lambda cupy, x: np.ones(3) * x,
    "in place": lambda cupy, x: x.__iadd__(np.ones(3)),
    "NumPy's array without axes": lambda cupy, x: x + np.array(1.0),
    "in where": lambda cupy, x: cupy.where(x > 0, x, np.ones(3)),
    "in concatenate": lambda cupy, x: cupy.concatenate([x, np.ones((2, 3))]),
    "to become NumPy's": lambda cupy, x: np.asarray(x),
    "max from an initial": lambda cupy, x: x.max(initial=0),
    "sums of some": lambda cupy, x: x.sum(where=x > 0),
    "ufuncs of some": lambda cupy, x: cupy.exp(x, where=x > 0),
    "astype by a rule": lambda cupy, x: x.astype("int32", casting="safe"),
    "an unknown argument": lambda cupy, x: cupy.stack([x, x], newaxis=1),
    "the length of a number": lambda cupy, x: len(x.sum()),
    "a number as an index": lambda cupy, x: range(x.sum()),
    "a key": lambda cupy, x: {x: 1},
    "scattering bfloat16": lambda cupy, x: cupy.add.at(x.astype(BFLOAT16), cupy.asarray([0]), 1),
    "float32 into integers": lambda cupy, x: cupy.arange(3).__iadd__(x[0]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name, cuda_standin, x):
    with pytest.raises(TypeError):
        REFUSED[name](cuda_standin, x)


def test_has_not_what_cupy_has_not(cuda_standin, x):
    assert not hasattr(cuda_standin, "errstate")
    assert not hasattr(x.flags, "writeable")
    with pytest.raises(ValueError, match="cannot be used"):
        x[:] = np.ones(3)
    with pytest.raises(ValueError, match="stable"):
        x.argsort(kind="quicksort")
    with pytest.raises(NotImplementedError):
        x.astype(BFLOAT16).argsort()
    with pytest.raises(NotImplementedError):
        cuda_standin.multiply.at(x, cuda_standin.asarray([0]), 2)


def test_numbers_stay_on_the_device_until_they_are_fetched(cuda_standin, x):
    fake_cupy.transfers.fetched = 0
    total = x.sum()
    assert isinstance(total, cuda_standin.ndarray)
    assert isinstance(x[1, 2], cuda_standin.ndarray)
    assert all(isinstance(row, cuda_standin.ndarray) for row in x)
    assert fake_cupy.transfers.fetched == 0
    assert float(total) == total.item() == 15
    assert bool(total == 15)
    assert fake_cupy.transfers.fetched == 3


def test_indices_wrap_around(cuda_standin, x):
    assert x[[3, -4]].tolist() == x[[1, 0]].tolist()
    assert x[:, cuda_standin.asarray([4])].tolist() == [[1], [4]]
    assert x.take(np.array([5]), axis=0).tolist() == [[3, 4, 5]]
    with pytest.raises(IndexError):
        x[2]
    x[cuda_standin.asarray([2]), 0] = 9
    assert x[0, 0] == 9


def test_dtypes_come_of_cupys_loops(cuda_standin, x):
    assert (x * 2.0).dtype == (x * np.float32(2)).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    half = x.astype(BFLOAT16)
    assert (half + half).dtype == (half * 2).dtype == cuda_standin.exp(half).dtype == BFLOAT16
    assert (half * 2.0).dtype == cuda_standin.where(half > 0, half, half).dtype == np.float32
    assert half.sum().dtype == half.mean().dtype == BFLOAT16
    assert (cuda_standin.arange(3) / 2).dtype == np.float64


def test_views_know_their_base(x):
    assert x.base is None
    assert x[0].base is x
    assert x.T[1:].base is x
    assert x.copy().base is None
    assert x.astype("float32", copy=False) is x
    x[0][:] = 7
    assert x.tolist()[0] == [7, 7, 7]


CAPTURED = {
    "fetched": lambda cupy, x: x.get(),
    "a number": lambda cupy, x: float(x.sum()),
    "sent": lambda cupy, x: cupy.asarray(np.ones(3)),
    "set": lambda cupy, x: x.set(np.ones((2, 3), np.float32)),
    "an index of the host's": lambda cupy, x: x[[1, 0]],
    "a mask": lambda cupy, x: x[x > 0],
    "sorted": lambda cupy, x: x.argsort(),
    "nine joined": lambda cupy, x: cupy.stack([x] * 9),
    "cuBLAS": lambda cupy, x: x @ x.T,
    "waited for": lambda cupy, x: cupy.cuda.Stream().synchronize(),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_refuses_while_a_stream_captures(name, cuda_standin, x):
    stream = cuda_standin.cuda.Stream(non_blocking=True)
    CAPTURED[name](cuda_standin, x)
    stream.begin_capture()
    with pytest.raises((RuntimeError, NotImplementedError)):
        CAPTURED[name](cuda_standin, x)
    y = cuda_standin.stack([x, 2 * x]).sum(axis=0) + cuda_standin.asarray(np.array(1, np.float32))
    graph = stream.end_capture()
    np.testing.assert_array_equal(y.get(), 3 * x.get() + 1)
    graph.launch(stream)
    with pytest.raises(RuntimeError, match="can't do again"):
        graph.launch(stream)
    with pytest.raises(RuntimeError, match="legacy"):
        cuda_standin.cuda.Stream().begin_capture()


def test_numpys_functions_find_it(cuda_standin, x):
    assert isinstance(np.exp(x), cuda_standin.ndarray)
    assert isinstance(np.concatenate([x, x]), cuda_standin.ndarray)
    with pytest.raises(TypeError):
        np.concatenate([x, np.ones((2, 3))])


def test_batched_bfloat16_is_not_multiplied(x):
    half = x.astype(BFLOAT16)
    assert (half @ half.T).dtype == BFLOAT16
    with pytest.raises(RuntimeError, match="ends the process"):
        half[None] @ half.T


def test_it_leaves_nothing_behind():
    before = {name: sys.modules.get(name) for name in ("cupy", "cupyx", "cupyx.scipy.special", "cupy_backends")}
    with fake_cupy.installed() as cupy:
        assert sys.modules["cupy"] is cupy
    assert {name: sys.modules.get(name) for name in before} == before


def test_many_arrays_are_joined_while_recording(cuda_standin):
    parts = [cuda_standin.asarray(np.full((2, 1), i)) for i in range(70)]
    stream = cuda_standin.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    try:
        with pytest.raises(RuntimeError, match="tables of addresses"):
            cuda_standin.concatenate(parts, axis=1)
        with recording():
            whole = ops.concatenate(parts, axis=1)
    finally:
        stream.end_capture()
    np.testing.assert_array_equal(whole.get(), [range(70)] * 2)
