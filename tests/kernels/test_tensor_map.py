"""Tensor maps: what the copy engine can read, and what the driver is asked."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.cuda import tensor_map as module
from minilm_kernels.cuda.tensor_map import can_map, tensor_map


def test_what_the_copy_engine_can_read():
    x = np.zeros((2, 3, 8, 64), np.float16)
    assert can_map(x)
    assert can_map(x.swapaxes(1, 2))
    assert can_map(x[:, :1])
    assert not can_map(x[..., ::2])
    assert not can_map(x[..., 1:])
    assert not can_map(x[:, :, ::-1])
    assert not can_map(np.broadcast_to(x[:, :1], x.shape))
    assert not can_map(np.zeros((2, 3, 8, 60), np.float16))
    with pytest.raises(ValueError, match="make it contiguous"):
        tensor_map(x[..., ::2], 64)


def test_strides_of_axes_of_length_one_are_beyond_what_lies_before_them(monkeypatch):
    found = []
    monkeypatch.setattr("minilm_kernels.cuda.tensor_map._encode", lambda *args: found.append(args[2:4]) or bytes(128))
    for shape in ((1, 1, 1, 64), (1, 3, 8, 64), (2, 1, 8, 40), (2, 3, 1, 64)):
        tensor_map(np.zeros(shape, np.float16), 64)
        sizes, strides = found[-1]
        assert sizes == shape[::-1]
        assert strides == (2 * shape[3], 2 * shape[2] * shape[3], 2 * shape[1] * shape[2] * shape[3])


@pytest.mark.parametrize("rows", [0, 257])
def test_what_the_driver_refuses_the_emulator_does(emulated, cuda_host, rows):
    with emulated(capability=90), pytest.raises(cuda_host.KernelError, match="no tensor map"):
        tensor_map(np.zeros((1, 1, 300, 64), np.float16), rows)


class Driver:
    """cuTensorMapEncodeTiled with the parameters of cuda.h, which keeps them and writes a map."""

    status = 0

    def cuTensorMapEncodeTiled(
        self, place, dtype, rank, address, sizes, strides, box, steps, interleave, swizzle, promotion, fill
    ):
        self.place, self.address = place.value, address.value
        self.numbers = [x.value for x in (dtype, rank, interleave, swizzle, promotion, fill)]
        self.types = [type(x) for x in (sizes, strides, box, steps)]
        self.sizes, self.strides, self.box, self.steps = map(list, (sizes, strides, box, steps))
        ctypes.memmove(self.place, bytes(range(128)), 128)
        return self.status


@pytest.fixture
def driver(monkeypatch):
    found = Driver()
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: found)
    module._driver_encode.cache_clear()
    yield found
    module._driver_encode.cache_clear()


@pytest.mark.parametrize(("dtype", "number"), [(np.float16, 6), (ml_dtypes.bfloat16, 9)])
def test_what_the_driver_is_asked(driver, dtype, number):
    x = np.zeros((2, 100, 3, 80), dtype).swapaxes(1, 2)  # (B, heads, length, head size), heads side by side
    for rows in range(16, 272, 16):  # the memory that the driver writes to lies elsewhere each time
        found = tensor_map(x, rows)
        assert found.tobytes() == bytes(range(128))
        assert driver.place % 128 == 0  # alignof(CUtensorMap) since CUDA 13, 64 before
        assert driver.box == [64, rows, 1, 1]
    assert driver.address == x.ctypes.data
    assert driver.sizes == [80, 100, 3, 2]
    assert driver.strides == [3 * 80 * 2, 80 * 2, 100 * 3 * 80 * 2]  # bytes, of all axes but the innermost
    assert driver.steps == [1, 1, 1, 1]
    # its type, four axes, no interleaving, the swizzle of 128 bytes, 256 bytes to L2, zeros beyond the bounds
    assert driver.numbers == [number, 4, 0, 3, 3, 0]
    assert driver.types == [ctypes.c_uint64 * 4, ctypes.c_uint64 * 3, ctypes.c_uint32 * 4, ctypes.c_uint32 * 4]


def test_what_the_driver_refuses_is_an_error(driver):
    driver.status = 1
    with pytest.raises(RuntimeError, match=r"no tensor map of a float16 tensor of sizes \(64, 8, 1, 1\).*error 1"):
        tensor_map(np.zeros((1, 1, 8, 64), np.float16), 64)
