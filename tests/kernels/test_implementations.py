"""Every implementation in the registry against the float64 reference, on whatever its operation's workload can draw.

`MINILM_EXAMPLES=2000 pytest tests/kernels/test_implementations.py` looks further.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import registry
from minilm_kernels.bench.checking import Case, cases, check, dtypes
from minilm_kernels.bench.workload import workload, workloads

EXAMPLES = int(os.environ.get("MINILM_EXAMPLES", "8"))
FOUND = [
    pytest.param(name, mode, entry.name, dtype, id=f"{operation}-{entry.name}-{dtype}")
    for name, found in workloads().items()
    for mode, operation in found.passes().items()
    for entry in registry.implementations(operation, device="cpu")
    if entry.name != "reference"
    for dtype in dtypes(entry)
]


@cache
def parameters(name: str):
    """Sizes and options: the workload's awkward values, and for sizes any number between them."""
    found = workload(name)
    drawn = {}
    for key, values in found.awkward.items():
        drawn[key] = st.sampled_from(values)
        if key in found.sizes:
            step = found.multiple_of.get(key, 1)
            drawn[key] |= st.integers(min(values) // step, max(values) // step).map(lambda n, step=step: n * step)
    return st.fixed_dictionaries(drawn)


@pytest.mark.parametrize(("name", "mode", "implementation", "dtype"), FOUND)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_random_inputs(name, mode, implementation, dtype, data):
    case = Case(
        data.draw(parameters(name)),
        data.draw(st.sampled_from(workload(name).layouts)),
        data.draw(st.integers(0, 2**32 - 1)),
    )
    found = check(workload(name), mode, implementation, dtype, case)
    assert found == "right" or found.startswith("refused: "), f"{case}: {found}"


@pytest.mark.parametrize("name", workloads())
def test_awkward_cases_have_every_value(name):
    found = workload(name)
    drawn = list(cases(found, seed=1))
    assert {case.layout for case in drawn} == set(found.layouts)
    for key, values in found.awkward.items():
        assert {case.parameters[key] for case in drawn} == set(values), key
    assert set(found.awkward) == {*found.sizes, *found.options}


@pytest.mark.parametrize("name", workloads())
def test_work_is_counted_and_grows(name):
    found = workload(name)
    options = {option: values[0] for option, values in found.options.items()}
    for shape in found.presets["default"]:
        sizes = dict(zip(found.sizes, shape, strict=True))
        more = {**sizes, found.x: 2 * sizes[found.x]}
        for mode in found.passes():
            assert 0 < found.flops(mode, **sizes, **options) < found.flops(mode, **more, **options)


def test_every_operation_has_a_workload():
    there = {name.removesuffix("_backward") for name in registry.operations()}
    assert there == set(workloads())
