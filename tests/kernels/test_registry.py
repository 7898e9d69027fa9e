"""Which implementation runs, what the package exports, and what importing it costs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys

import minilm_kernels
import numpy as np
import pytest
from minilm_kernels import registry, softmax

NO_OPERATIONS = ("compile_ahead", "get_num_threads", "implementations", "operations", "set_num_threads")
FUNCTIONS = [name for name in minilm_kernels.__all__ if name not in NO_OPERATIONS]


@pytest.fixture
def operation():
    """A name that is an operation's as long as the test runs."""
    yield "made_up"
    registry._registry.pop("made_up", None)
    registry._candidates.cache_clear()


def test_every_operation_has_a_public_function_and_a_reference():
    assert set(registry.operations()) == set(FUNCTIONS)
    for name in FUNCTIONS:
        last = registry.implementations(name)[-1]
        assert (last.name, last.device, last.dtypes, last.limits) == ("reference", "any", None, None)


def test_every_operation_has_a_cpu_kernel():
    for name in FUNCTIONS:
        kernels = [entry for entry in registry.implementations(name) if entry.device == "cpu"]
        assert any(entry.dtypes is None or "float32" in entry.dtypes for entry in kernels), name


def test_all_implementations_have_one_signature():
    for name in FUNCTIONS:
        expected = inspect.signature(registry.implementations(name)[-1].function).parameters.keys()
        for entry in registry.implementations(name):
            assert inspect.signature(entry.function).parameters.keys() == expected
        public = list(inspect.signature(getattr(minilm_kernels, name)).parameters)
        if name.endswith(("cross_entropy_backward", "norm_backward")):  # g may have another dtype than what decides
            decides = next(iter(expected))
            public.remove(decides)
            public.insert(0, decides)
        assert public == [*expected, "implementation"]


def test_exported_names_are_functions_whatever_was_imported():
    """`minilm_kernels.attention` is the function, though a folder has that name."""
    for name in FUNCTIONS:
        importlib.import_module(f"minilm_kernels.{name.removesuffix('_backward')}.reference")
        assert inspect.isfunction(getattr(minilm_kernels, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_in_docstrings_run(name):
    function = getattr(minilm_kernels, name)
    for test in doctest.DocTestFinder().find(function, name, globs={"np": np} | vars(minilm_kernels)):
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


def test_importing_the_package_does_not_import_numba():
    code = "import sys, minilm_kernels; sys.exit('numba' in sys.modules or 'cupy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_takes_the_last_registered_that_can_run(operation):
    positive = lambda x: None if (x > 0).all() else "it takes positive numbers"
    for name, options in {
        "reference": {},
        "small": {"dtypes": ("float32",)},
        "narrow": {"device": "cpu", "dtypes": ("float32",), "limits": positive},
        "gpu": {"device": "cuda"},
    }.items():
        registry.register(operation, name=name, **options)(lambda x, name=name: name)
    ones = np.ones(2, np.float32)
    assert registry.call(operation, "auto", ones) == "narrow"
    assert registry.call(operation, "auto", -ones) == "small"
    assert registry.call(operation, "auto", ones.astype(np.float64)) == "reference"
    assert registry.call(operation, "reference", ones) == "reference"
    assert [registry.choose(operation, "auto", x).name for x in (ones, -ones)] == ["narrow", "small"]
    assert registry.choose(operation, "narrow", -ones) is None
    for name, reason in {
        "narrow": "'narrow': it takes positive numbers",
        "gpu": "'gpu': it runs on cuda, and the arrays are on cpu",
    }.items():
        with pytest.raises(ValueError, match=reason):
            registry.call(operation, name, -ones)
    with pytest.raises(ValueError, match="'small': it takes float32, and the arrays are float64"):
        registry.call(operation, "small", ones.astype(np.float64))
    assert [entry.name for entry in registry.implementations(operation)][-1] == "reference"


def test_a_new_implementation_is_seen_after_a_call(operation):
    x = np.ones(1)
    registry.register(operation, name="reference")(lambda x: "old")
    assert registry.call(operation, "auto", x) == "old"
    registry.register(operation, name="better")(lambda x: "new")
    assert registry.call(operation, "auto", x) == "new"


def test_errors_say_what_to_do():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="softmax has no implementation 'fast'; there are: 'auto', "):
        softmax(x, implementation="fast")
    with pytest.raises(ValueError, match=r"no operation is named 'sofmax'; there are: adamw, .*attention, "):
        registry.implementations("sofmax")
    with pytest.raises(ValueError, match="device is 'any', 'cpu' or 'cuda', not 'gpu'"):
        registry.register("softmax", name="fast", device="gpu")
    for found in (registry.device_of, registry.array_module):
        with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got list"):
            found([1.0])


def test_arrays_in_another_order_of_bytes_are_numpys_to_read():
    x = np.arange(6, dtype=">f4").reshape(2, 3)
    np.testing.assert_allclose(softmax(x), softmax(x.astype(np.float32)), rtol=1e-6)
    with pytest.raises(ValueError, match="it takes float32, and the arrays are >f4, of another order of bytes"):
        softmax(x, implementation="cpu")
