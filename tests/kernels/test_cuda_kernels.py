"""The CUDA kernels, emulated on NumPy arrays, against the float64 reference: every dtype, awkward sizes and layouts.

What is registered as "cuda" is walked; the cases are those of the operation's workload, and the same with sizes that
allow packs of 16 bytes. Threads act in ascending and in descending order by turns.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from minilm_kernels import registry
from minilm_kernels.bench.checking import cases, check
from minilm_kernels.bench.workload import workload, workloads
from minilm_kernels.cuda.launching import DTYPES

FOUND = [
    pytest.param(name, mode, dtype, id=f"{operation}-{dtype}")
    for name, found in workloads().items()
    if name != "attention"  # has tests of its own
    for mode, operation in found.passes().items()
    for entry in registry.implementations(operation)
    if entry.name == "cuda"
    for dtype in sorted(entry.dtypes or DTYPES)
]


@pytest.fixture(autouse=True)
def numpy_arrays_for_cuda(monkeypatch):
    """The registry takes NumPy arrays for a GPU's, so that implementations for CUDA run on them."""
    registry._candidates.cache_clear()
    monkeypatch.setattr(registry, "device_of", lambda array: "cuda")
    yield
    registry._candidates.cache_clear()


def _wider(name, case):
    """The same case with its last size a multiple of a pack."""
    sizes = workload(name).sizes
    return replace(case, parameters={**case.parameters, sizes[-1]: 8 * min(case.parameters[sizes[-1]], 40)})


@pytest.mark.parametrize(("name", "mode", "dtype"), FOUND)
def test_awkward_cases(emulated, name, mode, dtype):
    found = workload(name)
    checked = 0
    for number, case in enumerate(cases(found)):
        with emulated(descending=number % 2 == 1) as emulator:
            for each in (case, _wider(name, case)):
                outcome = check(found, mode, "cuda", dtype, each)
                assert outcome == "right" or outcome.startswith("refused: "), f"{each}: {outcome}"
            checked += len(emulator.launches)
    assert checked > 0


def test_every_hot_operation_has_a_cuda_kernel():
    there = {re.sub("-.*", "", param.id) for param in FOUND}
    assert there >= {"layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"}
