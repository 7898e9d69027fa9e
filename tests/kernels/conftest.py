"""What the tests of kernels share: awkward layouts, the error law, finite differences, threads, CUDA's emulator."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from minilm_kernels.bench.device import laid_out as _laid_out


def _as_tuple(result) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def _error_law(function, *arrays, implementation, size=0.0, **settings) -> None:
    """Asserts that an implementation's error is at most twice that of the reference in the same dtype.

    Both errors are largest differences from the reference in float64. Rounding the result itself, or terms as large as
    `size` that cancel in it, is always allowed. Also asserts shapes and dtypes, and that no input was written to.
    """
    before = [None if array is None else array.copy() for array in arrays]
    mine = _as_tuple(function(*arrays, implementation=implementation, **settings))
    for array, copy in zip(arrays, before):
        np.testing.assert_array_equal(array, copy)
    plain = _as_tuple(function(*arrays, implementation="reference", **settings))
    double = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    exact = _as_tuple(function(*double, implementation="reference", **settings))
    assert len(mine) == len(exact)
    for number, (m, p, e) in enumerate(zip(mine, plain, exact)):
        assert (m is None) == (e is None), f"output {number}"
        if m is None:
            continue
        assert m.shape == e.shape, f"output {number}"
        assert m.dtype == arrays[0].dtype, f"output {number}"
        if m.size == 0:
            continue
        np.testing.assert_array_equal(np.isfinite(m), np.isfinite(e), err_msg=f"output {number}")
        finite = np.isfinite(e)
        error = np.abs(m - e, where=finite, out=np.zeros_like(e)).max()
        allowed = 2 * np.abs(p - e, where=finite, out=np.zeros_like(e)).max()
        rounding = 4 * np.finfo(m.dtype).eps * max(size, np.abs(e, where=finite, out=np.zeros_like(e)).max())
        assert error <= allowed + rounding, f"output {number}: error {error:.3g}, the plain one's {allowed / 2:.3g}"


def _numeric_gradient(function, array: np.ndarray, g: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of sum(g * function()) for `array` (float64, restored) by central differences."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = (g * function()).sum()
        array[index] = kept - step
        below = (g * function()).sum()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


@pytest.fixture(scope="session")
def laid_out():
    """laid_out(array, layout): the same numbers in memory that is "transposed", "strided" or "readonly", say."""
    return _laid_out


@pytest.fixture(scope="session")
def error_law():
    return _error_law


@pytest.fixture(scope="session")
def numeric_gradient():
    return _numeric_gradient


@pytest.fixture(scope="session")
def same_bits():
    """A function that asserts that `compute()` gives the same bits each time and on any number of threads."""
    numba = pytest.importorskip("numba")

    def check(compute):
        threads = numba.get_num_threads()
        first = [np.array(array, copy=True) for array in _as_tuple(compute())]
        try:
            for count in (1, threads, threads):
                numba.set_num_threads(count)
                for array, again in zip(first, _as_tuple(compute())):
                    assert array.tobytes() == np.asarray(again).tobytes()
        finally:
            numba.set_num_threads(threads)

    return check


@pytest.fixture(scope="session")
def cuda_host():
    """The module cuda_host/harness.py; tests that need it are skipped where it has no compiler."""
    path = Path(__file__).parent / "cuda_host" / "harness.py"
    spec = importlib.util.spec_from_file_location("cuda_host_harness", path)
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    problem = harness.missing()
    if problem is not None:
        pytest.skip(problem)
    return harness


@pytest.fixture(scope="session")
def emulated(cuda_host, tmp_path_factory):
    """A context, `with emulated():`, in which `minilm_kernels.cuda` runs kernels on NumPy arrays, on the host.

    `descending=True` has blocks and their threads act in reverse order, `capability=90` makes it another card.
    """
    return partial(cuda_host.emulated, tmp_path_factory.mktemp("cuda_host"))
