"""Every implementation for arrays of a GPU against the float64 reference on the CPU; the references on the stand-in."""

from __future__ import annotations

import itertools

import fake_cupy
import numpy as np
import pytest
from minilm_kernels import registry
from minilm_kernels.bench.checking import Case, cases, dtypes
from minilm_kernels.bench.problem import Problem
from minilm_kernels.bench.workload import Workload, workload, workloads

from minilm import backend

FOUND = [
    (name, mode, entry)
    for name, found in workloads().items()
    for mode, operation in found.passes().items()
    for entry in registry.implementations(operation, device="cuda")
]
FEW = 8  # cases of each operation, spread over all its awkward values


def _id(value) -> str | None:
    return value.name if isinstance(value, registry.Implementation) else None


def _there(value):
    """Nested tuples, lists and dicts with their arrays on the GPU."""
    if isinstance(value, (tuple, list)):
        return type(value)(_there(part) for part in value)
    if isinstance(value, dict):
        return {name: _there(part) for name, part in value.items()}
    return backend.to_device(value, "cuda") if isinstance(value, np.ndarray) else value


def _here(value):
    return tuple(None if part is None else backend.to_numpy(part) for part in value)


def _check(found: Workload, mode: str, implementation: str, dtype: str, case: Case) -> str:
    """One case: "right", "refused: ..." by the implementation's own limits, or what is wrong."""
    problem = Problem(found, mode, case.parameters, dtype, case.seed)
    inputs = problem.fresh()
    args, settings = _there(inputs.args), _there(inputs.settings)
    try:
        returned = found.function(mode)(*args, **settings, implementation=implementation)
    except registry.Refused as error:
        return f"refused: {error}"
    results = found.results(returned, args)
    if any(part is not None and not np.isscalar(part) and backend.device_of(part) == "cpu" for part in results):
        return "a result is not on the GPU"
    return problem.verdict(_here(results)).fault or "right"


def _few(found: Workload) -> list[Case]:
    drawn = list(cases(found, seed=1))
    return list(itertools.islice(drawn, 0, None, -(-len(drawn) // FEW)))


@pytest.mark.parametrize(("name", "mode", "entry"), [f for f in FOUND if f[2].name == "reference"], ids=_id)
def test_references_run_on_arrays_of_a_gpu(name, mode, entry, cuda_standin):
    for case in _few(workload(name)):
        assert _check(workload(name), mode, entry.name, "float32", case) == "right", str(case)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "mode", "entry"), FOUND, ids=_id)
def test_implementations_on_a_gpu(name, mode, entry):
    for dtype in dtypes(entry):
        for case in cases(workload(name), seed=1):
            found = _check(workload(name), mode, entry.name, dtype, case)
            assert found == "right" or found.startswith("refused: "), f"{dtype}, {case}: {found}"


def test_arrays_of_two_devices_are_refused(cuda_standin):
    import minilm_kernels as kernels

    here = np.ones((2, 3), np.float32)
    for x, weight in ((_there(here), here[0]), (here, _there(here[0]))):
        with pytest.raises((ValueError, TypeError), match="different devices, cpu and cuda"):
            kernels.layer_norm(x, weight)
    assert fake_cupy.transfers.fetched == 0


def test_the_reference_keeps_bfloat16(device):
    import minilm_kernels as kernels

    x = backend.to_device(np.linspace(-2, 2, 12).reshape(3, 4).astype(backend.bfloat16()), device)
    out, _ = kernels.attention(x[None, None], x[None, None], x[None, None], implementation="reference")  # sums: float32
    for y in (
        kernels.gelu(x, implementation="reference"),
        *kernels.layer_norm(x, implementation="reference"),
        kernels.softmax(x, implementation="reference"),
        out,
    ):
        assert y.dtype == backend.bfloat16()
