"""The readable rung on CUDA: right in numba.cuda's simulator, and compiled for cards that are not there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from minilm_kernels import attention, registry

SIMULATED = Path(__file__).parent / "simulated" / "attention.py"
needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)


@needs_numba_cuda
def test_in_the_simulator():
    """Numba chooses the simulator when it is imported, so it has a process of its own."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(SIMULATED)]
    run = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout


def test_needs_arrays_on_a_gpu_and_runs_by_name_alone():
    q = np.zeros((1, 1, 2, 4), np.float32)
    with pytest.raises(registry.Refused, match="'numba_cuda': it runs on cuda, and the arrays are on cpu"):
        attention(q, q, q, implementation="numba_cuda")
    for operation in ("attention", "attention_backward"):
        (entry,) = (entry for entry in registry.implementations(operation) if entry.name == "numba_cuda")
        assert not entry.automatic
        assert entry.dtypes == {"float32", "float16"}


@needs_numba_cuda
@pytest.mark.parametrize("D", [64, 256])
def test_compiles_for_cards_that_are_not_there(D, monkeypatch):
    """Typed and compiled to PTX by NVVM, with the types that CuPy's arrays have; shared memory is within 48 KiB."""
    from minilm_kernels.attention.numba_cuda import backward, forward
    from numba import cuda, types
    from numba.cuda import dispatcher
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except nvvm.NvvmSupportError as error:
        pytest.skip(f"nothing here compiles to PTX: {error}; pip install nvidia-nvvm")
    # Functions that a kernel calls are compiled for the card that is there.
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(8, 0)))
    half = types.float16 if D == 64 else types.float32
    rows, single = types.Array(half, 4, "A"), types.Array(types.float32, 3, "C")
    ranges = [types.Array(types.int64, 2, "A")] * 3
    settings = [
        types.float32,
        types.float32,
        rows,
        types.Array(half, 2, "A"),
        types.uint64,
        types.float32,
        types.uint64,
    ]
    given = [rows] * 4 + ranges + [types.Array(half, 3, "C"), single] + settings
    for kernel, arguments in (
        (forward.forward_kernel, [rows] * 3 + ranges + settings + [rows, types.Array(half, 3, "C")]),
        (backward.query_kernel, [*given, rows]),
        (backward.key_kernel, [*given, rows, rows]),
        (backward.bias_kernel, [*given, types.Array(types.float32, 4, "C")]),
    ):
        function = kernel(D).py_func
        ptx, result = cuda.compile(function, tuple(arguments), device=False, abi="numba", cc=(8, 0), output="ptx")
        assert result == types.none
        assert ".target sm_80" in ptx
        shared = sum(int(size) for size in re.findall(r"\.shared .*\[(\d+)\]", ptx))
        assert 0 < shared <= 48 * 1024
        assert not re.search(r"\.local ", ptx), "arrays of a thread are in registers"
