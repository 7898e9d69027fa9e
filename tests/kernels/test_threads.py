"""One pool of threads for BLAS and the kernels: its size, results that don't depend on it, and life after a fork."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading

import minilm_kernels
import numpy as np
import pytest
from minilm_kernels import get_num_threads, registry, set_num_threads
from minilm_kernels.bench.problem import Problem
from minilm_kernels.bench.workload import arrays_in, workloads
from minilm_kernels.cores import available_cores

numba = pytest.importorskip("numba")

from minilm_kernels import pool  # noqa: E402 - needs numba

needs_fork = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork is Linux's way")


def run(code: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs Python code in a process of its own; one that hangs is an error."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def all_threads():
    """The number of threads of the pool; what a test sets is undone."""
    before = get_num_threads()
    set_num_threads(pool.SIZE)
    yield pool.SIZE
    set_num_threads(before)


@pytest.fixture
def product():
    x = np.random.default_rng(0).standard_normal((700, 700), dtype=np.float32)
    return x, x @ x


def test_products_are_right(product, all_threads):
    x, y = product
    exact = x.astype(np.float64) @ x.astype(np.float64)
    for count in {1, all_threads}:
        set_num_threads(count)
        assert np.abs(x @ x - exact).max() < 1e-5 * np.abs(exact).max()
    assert np.abs(y - exact).max() < 1e-5 * np.abs(exact).max()


def test_sharing_needs_openmp_and_numpys_own_blas():
    shared = numba.threading_layer() == "omp" and pool._bundled_openblas() is not None
    assert pool.shares_with_blas() == shared


def test_fewer_numba_threads_than_blas_jobs(product):
    x, y = product
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert (x @ x == y).all()
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_products_from_several_python_threads(product):
    x, y = product
    same = []
    workers = [threading.Thread(target=lambda: same.append(bool((x @ x == y).all()))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert same == [True] * 4


def test_products_of_several_kinds_at_once(product, all_threads):
    """OpenBLAS has a lock for each kind of product, and one buffer for each thread of a product, of whatever kind."""
    x, _ = product
    kinds = [lambda: x @ x, lambda: x @ x[::2].T, lambda: x.T @ x[:, ::3], lambda: x @ x[0], lambda: x @ x.T]
    wrong = []

    def work(kind, expected):
        for _ in range(20):
            error = np.abs(kind() - expected).max()
            if not error < 1e-3:
                wrong.append(error)

    workers = [threading.Thread(target=work, args=(kind, kind())) for kind in kinds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong


# -- how many ----------------------------------------------------------------------------------------------------------


def test_the_number_is_one_for_all(all_threads):
    set_num_threads(1)
    assert get_num_threads() == 1
    seen = []
    worker = threading.Thread(target=lambda: seen.append(get_num_threads()))
    worker.start()
    worker.join(60)
    assert seen == [1]
    if pool._blas is not None:
        assert pool._blas_function("get_num_threads")() == 1


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "expected 1 or more"),
        (-2, ValueError, "expected 1 or more"),
        (10_000, ValueError, "set OMP_NUM_THREADS=10000"),
        (1.5, TypeError, "expected an integer"),
        ("2", TypeError, "expected an integer"),
    ],
)
def test_a_number_that_can_not_be(n, error, message):
    before = get_num_threads()
    with pytest.raises(error, match=message):
        set_num_threads(n)
    assert get_num_threads() == before


def test_omp_num_threads_is_honoured():
    code = "import numpy as np, minilm_kernels as k; k.global_norm([np.ones(9)]); print(k.get_num_threads())"
    for given in ("1", "3", "1,2"):
        result = run(code, OMP_NUM_THREADS=given)
        assert result.stdout.split() == [given[0]], result.stderr
    assert "OMP_NUM_THREADS is 'many'" in run(code, OMP_NUM_THREADS="many").stderr
    assert run(code).stdout.split() == [str(available_cores())]


def test_cores_of_the_affinity_and_of_the_control_group(tmp_path):
    plain = available_cores(tmp_path)  # a folder without a control group's files
    if hasattr(os, "sched_getaffinity"):
        assert plain == len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    for text, cores in (("max 100000", plain), ("50000 100000", 1), ("6400000 100000", plain), ("nonsense", plain)):
        quota.write_text(text)
        assert available_cores(tmp_path) == cores
    quota.unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for text, cores in (("-1\n", plain), ("100000\n", 1)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text)
        assert available_cores(tmp_path) == cores


# -- results -----------------------------------------------------------------------------------------------------------


def passes():
    return [(name, mode) for name, workload in workloads().items() for mode in workload.passes()]


@pytest.mark.parametrize(("operation", "mode"), passes())
def test_results_are_the_same_bits_on_every_number_of_threads(operation, mode, all_threads):
    workload = workloads()[operation]
    enough = [shape for shape in workload.presets["default"] if math.prod(shape) > 60_000]
    options = {name: values[0] for name, values in workload.options.items()}
    kernels = registry.implementations(workload.passes()[mode], "cpu")
    for kernel in (kernel for kernel in kernels if kernel.device == "cpu" and kernel.automatic):
        for shape in sorted(enough or workload.presets["default"], key=math.prod):
            problem = Problem(workload, mode, {**dict(zip(workload.sizes, shape)), **options}, "float32")
            try:
                problem.run(kernel.name)
                break
            except registry.Refused:
                continue
        bits = []
        for count in (1, all_threads, all_threads):
            pool._limit.value = count  # the kernels' only: OpenBLAS rounds a product differently on each number
            bits.append([array.tobytes() for array in arrays_in(problem.run(kernel.name))])
        assert bits[0] == bits[1] == bits[2], kernel.name


# -- a launch ----------------------------------------------------------------------------------------------------------


def test_in_parts_covers_everything_once_and_reports_what_raised(all_threads):
    from minilm_kernels.jit import jit
    from minilm_kernels.launch import in_parts

    @jit
    def count(x, limit, start, stop):
        if stop > limit:
            raise ValueError("not this far")
        for i in range(start, stop):
            x[i] += 1

    @jit
    def count_all(parts, x, limit):
        in_parts(count, parts, x.size, (x, limit))

    for parts in (1, 2, 7, 200):
        x = np.zeros(100, np.int64)
        count_all(parts, x, 100)
        assert (x == 1).all()
        with pytest.raises(RuntimeError, match="raised in one of its parts"):
            count_all(parts, x, 99)
    count_all(0, x, 100)
    assert (x[0] >= 1).all()


def test_a_thread_that_is_done_takes_over_the_others_parts(all_threads):
    from minilm_kernels.jit import jit
    from minilm_kernels.launch import in_parts

    @jit
    def turn(x, spins, start, stop):
        for i in range(start, stop):
            for _ in range(spins[i]):
                x[i] = (x[i] * 3 + 1) % 1000003
            x[i] += 1000003

    @jit
    def turn_all(parts, x, spins):
        in_parts(turn, parts, x.size, (x, spins))

    spins = np.zeros(64, np.int64)
    spins[:8] = 200_000  # all of it in the first thread's share
    expected = np.zeros(64, np.int64)
    turn_all(1, expected, spins)
    for parts in (3, 64, 100):
        x = np.zeros(64, np.int64)
        turn_all(parts, x, spins)
        np.testing.assert_array_equal(x, expected)


def test_in_parts_lends_its_arrays_without_counting_them(all_threads):
    """A counted view of each row would have every thread write to one counter: it is neither slow nor leaks."""
    import sys

    from minilm_kernels.jit import jit
    from minilm_kernels.launch import in_parts

    @jit
    def total(x, sums, start, stop):
        for i in range(start, stop):
            row = x[i]
            sums[i] = row[::2].sum() + row[1::2].sum()

    @jit
    def total_all(x, sums):
        in_parts(total, 50, len(x), (x, sums))

    x, sums = np.arange(5000.0).reshape(500, 10), np.zeros(500)
    total_all(x, sums)
    before = sys.getrefcount(x), sys.getrefcount(sums)
    for _ in range(20):
        total_all(x, sums)
    assert (sys.getrefcount(x), sys.getrefcount(sums)) == before
    np.testing.assert_array_equal(sums, x.sum(axis=1))


# -- after a fork ------------------------------------------------------------------------------------------------------

USE = """
import os, numpy as np, numba, minilm_kernels as k
from minilm_kernels.jit import jit, prange
x = np.random.default_rng(0).standard_normal((700, 700), dtype=np.float32)

@jit(parallel=True)
def total(x):
    sums = np.zeros(len(x))
    for i in prange(len(x)):
        sums[i] = x[i].sum()
    return sums

def use():
    q = x.reshape(1, 7, 700, 100)
    return x @ x, k.rms_norm(x, None)[0], k.attention(q, q, q)[0], total(x)

def same(a, b):
    return all(np.allclose(p, q, atol=1e-4) for p, q in zip(a, b))

"""


@needs_fork
def test_fork_after_kernels_and_products_have_run():
    result = run(
        USE
        + """
first = use()
child = os.fork()
if child == 0:
    code = 0 if same(use(), first) and k.get_num_threads() == 1 else 3
    try:
        k.set_num_threads(2)
    except ValueError as error:
        code += "spawn" not in str(error)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if same(use(), first) else 3)
    os._exit(code or os.waitpid(grandchild, 0)[1])
assert os.waitpid(child, 0)[1] == 0
assert k.get_num_threads() > 1 or len(os.sched_getaffinity(0)) == 1
assert same(use(), first)
"""
    )
    assert result.returncode == 0, result.stderr


@needs_fork
def test_fork_before_anything_has_run():
    result = run(
        USE
        + """
child = os.fork()
if child == 0:
    use()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
use()
"""
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_pools_of_processes(method):
    result = run(
        f"""
import multiprocessing, numpy as np, minilm_kernels as k
if __name__ == "__main__":
    arrays = [np.ones((400, 400), np.float32)]
    first = k.global_norm(arrays)
    arrays[0] @ arrays[0]
    with multiprocessing.get_context("{method}").Pool(2) as workers:
        assert workers.map(k.global_norm, [arrays] * 4) == [first] * 4
    assert k.global_norm(arrays) == first
"""
    )
    assert result.returncode == 0, result.stderr


def test_the_package_says_how_many_threads_there_are():
    assert {"get_num_threads", "set_num_threads"} <= set(minilm_kernels.__all__)
