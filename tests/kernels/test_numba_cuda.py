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
from minilm_kernels import attention, registry, simt
from minilm_kernels.attention.arguments import checked

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
@pytest.mark.parametrize(("D", "dtype"), [(64, np.float16), (256, np.float32)])
def test_compiles_for_cards_that_are_not_there(D, dtype, monkeypatch):
    """Typed and compiled to PTX by NVVM, with the arguments that are launched; shared memory is within 48 KiB."""
    from minilm_kernels.attention import numba_cuda
    from numba import cuda, types
    from numba.cuda import dispatcher

    if (problem := simt.problem()) is not None:
        pytest.skip(problem)
    launched = []

    def launch(*arguments):
        launched.append(arguments)
        for array in arguments[3:]:
            if array.ndim and array.flags.writeable:
                array[...] = 0  # as if computed

    monkeypatch.setattr(numba_cuda, "launch", launch)
    # Functions that a kernel calls are compiled for the card that is there.
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(8, 0)))
    q, k = np.zeros((1, 4, 70, D), dtype), np.zeros((1, 2, 90, D), dtype)
    settings = checked(
        *(
            q,
            k,
            k,
            True,
            20,
            None,
            3.0,
            np.zeros((70, 90), dtype),
            [1, 2, 3, 4],
            [80],
            None,
            None,
            0.1,
            2**63,
            None,
            None,
        )
    )
    out, logsumexp = numba_cuda.attention(q, k, k, **settings)
    numba_cuda.attention_backward(q, q, k, k, out, logsumexp, **settings, bias_gradient=True, into=None)
    names = [function.__name__ for function, *_ in launched]
    assert names == ["forward", "query_gradients", "key_gradients", "bias_gradients"]
    for function, blocks, threads, *arguments in launched:
        assert blocks > 0
        assert threads[0] * threads[1] <= 256
        argument_types = simt.argument_types(arguments)
        ptx, result = cuda.compile(function, argument_types, device=False, abi="numba", cc=(8, 0), output="ptx")
        assert result == types.none
        assert ".target sm_80" in ptx
        shared = sum(int(size) for size in re.findall(r"\.shared .*\[(\d+)\]", ptx))
        assert 0 < shared <= 48 * 1024
        assert not re.search(r"\.local ", ptx), "arrays of a thread are in registers"
