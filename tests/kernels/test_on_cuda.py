"""Every implementation for arrays of a GPU against the float64 reference on the CPU; the references on the stand-in."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import fake_cupy
import numpy as np
import pytest
from awkward import wider
from minilm_kernels import registry
from minilm_kernels.bench.checking import Case, cases, dtypes
from minilm_kernels.bench.cuda import Cuda
from minilm_kernels.bench.problem import Problem
from minilm_kernels.bench.workload import Workload, workload, workloads
from minilm_kernels.cuda import program
from minilm_kernels.cuda.launching import DTYPES

from minilm import backend

FOUND = [
    (name, mode, entry)
    for name, found in workloads().items()
    for mode, operation in found.passes().items()
    for entry in registry.implementations(operation, device="cuda")
]
ON_A_GPU = [
    pytest.param(name, mode, entry, dtype, id=f"{entry.operation}-{entry.name}-{dtype}")
    for name, mode, entry in FOUND
    for dtype in sorted({*dtypes(entry), *(entry.dtypes or DTYPES if entry.device == "cuda" else ())})
]
FEW = 8  # cases of each operation, spread over all its awkward values


def _id(value) -> str | None:
    return value.name if isinstance(value, registry.Implementation) else None


def _check(found: Workload, mode: str, implementation: str, dtype: str, case: Case) -> str:
    """One case: "right", "refused: ..." by the implementation's own limits, or what is wrong."""
    problem = Problem(found, mode, case.parameters, dtype, case.seed, case.layout)
    there = copy.copy(problem)
    there.device = Cuda()
    try:
        results = there.run(implementation)
    except registry.Refused as error:
        return f"refused: {error}"
    except Exception as error:  # whatever it does wrong, the other cases are still of interest
        return f"{type(error).__name__}: {error}"
    if any(part is not None and not np.isscalar(part) and backend.device_of(part) == "cpu" for part in results):
        return "a result is not on the GPU"
    return problem.verdict(tuple(None if part is None else backend.to_numpy(part) for part in results)).fault or "right"


def _few(found: Workload) -> list[Case]:
    drawn = list(_plain(found))
    return list(itertools.islice(drawn, 0, None, -(-len(drawn) // FEW)))


def _plain(found: Workload) -> Iterator[Case]:
    return (replace(case, layout="contiguous") for case in cases(found, seed=1))


def _awkward(found: Workload, entry: registry.Implementation) -> Iterator[Case]:
    """Each value of each size and option; for kernels each layout too, and sizes that allow packs of 16 bytes."""
    yield from _plain(found)
    if entry.device == "cuda":
        yield from cases(found)
        if found.operation != "attention":  # its last size is that of a head
            yield from (wider(found, case) for case in cases(found))


@pytest.mark.parametrize(("name", "mode", "entry"), [f for f in FOUND if f[2].name == "reference"], ids=_id)
def test_references_run_on_arrays_of_a_gpu(name, mode, entry, cuda_standin):
    for case in _few(workload(name)):
        assert _check(workload(name), mode, entry.name, "float32", case) == "right", str(case)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "mode", "entry", "dtype"), ON_A_GPU)
def test_implementations_on_a_gpu(name, mode, entry, dtype):
    found = workload(name)
    outcomes = [(case, _check(found, mode, entry.name, dtype, case)) for case in _awkward(found, entry)]
    refused = [outcome for _, outcome in outcomes if outcome.startswith("refused: ")]
    wrong = [f"{case}: {outcome}" for case, outcome in outcomes if outcome not in ("right", *refused)]
    assert not wrong, "\n".join(wrong)
    if len(refused) == len(outcomes):
        pytest.skip(refused[0])


def _there(array):
    return backend.to_device(array, "cuda")


@pytest.mark.parametrize(("name", "mode"), dict.fromkeys(found[:2] for found in FOUND), ids=str)
def test_whether_a_kernel_takes_arrays_is_asked_without_a_look_at_them(name, mode, cuda_standin, monkeypatch):
    """By all kernels' limits, of every case's settings, under the rules of a recording."""
    monkeypatch.setitem(program._properties, 0, program.DeviceProperties(90, 132, 232448))
    known, asked = registry._candidates, []

    def candidates(operation, implementation, device, dtype):
        kernels = [e for e in registry.implementations(operation, device="cuda") if e.limits and e.device == "cuda"]

        def limits(*args, **settings):
            asked.append(operation)
            monkeypatch.setattr(fake_cupy.transfers, "capturing", True)
            for kernel in kernels:
                if kernel.name != "numba_cuda":  # which looks whether there is a GPU
                    assert isinstance(kernel.limits(*args, **settings), str | None)
            monkeypatch.setattr(fake_cupy.transfers, "capturing", False)
            return "it was only asked"

        entry = registry.Implementation(operation, "asked", "cuda", None, lambda *args: None, limits)
        return entry, *known(operation, "reference", device, dtype)

    candidates.cache_clear = known.cache_clear
    monkeypatch.setattr(registry, "_candidates", candidates)
    for case in _few(workload(name)):
        assert _check(workload(name), mode, "auto", "float32", case) == "right", str(case)
    assert asked


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
