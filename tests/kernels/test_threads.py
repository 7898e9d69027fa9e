"""One pool of threads for BLAS and the kernels: products stay right for any number of threads, and after a fork."""

from __future__ import annotations

import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
from minilm_kernels.threads import share_with_blas


@pytest.fixture
def product():
    x = np.random.default_rng(0).standard_normal((700, 700), dtype=np.float32)
    return x, x @ x


def test_products_are_right(product):
    x, y = product
    exact = x.astype(np.float64) @ x.astype(np.float64)
    assert np.abs(y - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.skipif(
    not share_with_blas(), reason="NumPy's BLAS is not the OpenBLAS of its wheels, or OpenMP is missing"
)
def test_sharing_says_that_it_is_on():
    assert share_with_blas()
    assert numba.threading_layer() == "omp"


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork is Linux's way")
def test_a_forked_child_multiplies_with_its_own_threads():
    code = (
        "import os, numpy as np, minilm_kernels as k\n"
        "x = np.random.default_rng(0).standard_normal((700, 700), dtype=np.float32)\n"
        "k.gelu(x)\n"
        "y = x @ x\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if (x @ x == y).all() else 3)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert (x @ x == y).all()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
