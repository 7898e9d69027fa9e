"""How kernels are launched through CuPy, on a driver that only counts shared memory."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from minilm_kernels.cuda import Program, program

KIB = 1024
STATIC = 2 * KIB  # what the kernel declares itself


class Driver:
    """Holds launches to the driver's law: unasked, static and dynamic shared memory are 48 KiB together."""

    def __init__(self) -> None:
        self.allowed: dict[int, int] = {}

    def funcSetAttribute(self, function: int, attribute: int, value: int) -> None:
        assert attribute == 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        if STATIC + value > 227 * KIB:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE")
        self.allowed[function] = value

    def function(self, name: str):
        def launch(grid, block, args, shared_bytes):
            if shared_bytes > self.allowed.get(launch.ptr, 48 * KIB - STATIC):
                raise RuntimeError("CUDA_ERROR_INVALID_VALUE")

        launch.ptr = hash(name)  # the same function each time that it is asked for
        return launch


@pytest.fixture
def kernel(monkeypatch):
    driver = Driver()
    module = SimpleNamespace(load=lambda cubin: None, get_function=driver.function)
    device = SimpleNamespace(
        compute_capability="90", attributes={"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 227 * KIB}
    )
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: 0),
        Device=lambda: device,
        function=SimpleNamespace(Module=lambda: module),
    )
    api = SimpleNamespace(driver=driver)
    for name, stub in (
        ("cupy", SimpleNamespace(cuda=cuda)),
        ("cupy_backends", SimpleNamespace(cuda=SimpleNamespace(api=api))),
        ("cupy_backends.cuda", SimpleNamespace(api=api)),
        ("cupy_backends.cuda.api", api),
    ):
        monkeypatch.setitem(sys.modules, name, stub)
    monkeypatch.setattr(program, "_runtime", program._CuPy())
    monkeypatch.setattr(program, "cubin", lambda *args: b"")
    monkeypatch.setattr(program, "_target", lambda *args: "sm_90")
    source = Program(__file__, "kernel.cu")
    return lambda: source.kernel("kernel")


@pytest.mark.parametrize("kibibytes", [0, 1, 46, 47, 48, 49, 225])
def test_a_block_gets_what_shared_memory_it_asks_for(kernel, kibibytes):
    kernel()(1, 32, (), kibibytes * KIB)


def test_a_launch_with_less_does_not_take_it_from_those_with_more(kernel):
    first = kernel()
    for other in (1, 49, 200):
        first(1, 32, (), 100 * KIB)
        kernel()(1, 32, (), other * KIB)
    first(1, 32, (), 100 * KIB)


def test_more_than_a_card_has_is_the_drivers_error(kernel):
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        kernel()(1, 32, (), 226 * KIB)
