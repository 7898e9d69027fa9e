"""The backend: dtypes, devices and what is said where one is missing, random streams, memory."""

import gc
import json
import subprocess
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minilm_kernels import portable

import minilm
from minilm import backend, ops
from minilm.backend import Generator


class FakeDeviceArray:
    """An array of a library that is not NumPy, with NumPy's behind it: enough to see which library is asked."""

    def __init__(self, array) -> None:
        self.array = np.asarray(array)
        self.dtype, self.shape = self.array.dtype, self.array.shape

    def get(self) -> np.ndarray:
        return self.array

    def astype(self, dtype, copy=True):
        return FakeDeviceArray(self.array.astype(dtype, copy=copy))


@pytest.fixture
def fake_cupy(monkeypatch):
    """Puts a module in the place of cupy; call it with what asking for the number of devices returns or raises."""

    def install(answer):
        cupy = types.ModuleType("cupy")
        cupy.ndarray = FakeDeviceArray
        cupy.asarray = FakeDeviceArray

        class CUDARuntimeError(RuntimeError):
            pass

        def get_device_count():
            if isinstance(answer, str):
                raise CUDARuntimeError(answer)
            return answer

        cupy.cuda = types.SimpleNamespace(
            runtime=types.SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
        )
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        return cupy

    return install


def _refusal() -> str:
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used here") as caught:
        minilm.tensor([1.0]).to("cuda")
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used here"):
        minilm.tensor([1.0], device="cuda")
    assert backend.default_device() == "cpu"
    return str(caught.value)


def test_cuda_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    message = _refusal()
    assert "package CuPy is not installed" in message
    assert "pip install 'minilm[cuda12]'" in message


def test_cuda_without_the_driver(fake_cupy):
    fake_cupy("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
    message = _refusal()
    assert "driver is missing or older" in message
    assert "cudaErrorInsufficientDriver" in message


def test_cuda_with_a_package_that_misses_the_driver(monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, *_):
            if name == "cupy":
                raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert "NVIDIA driver is missing (libcuda.so.1" in _refusal()


@pytest.mark.parametrize("answer", [0, "cudaErrorNoDevice: no CUDA-capable device is detected"])
def test_cuda_without_a_device(fake_cupy, answer):
    fake_cupy(answer)
    assert "finds no device; check nvidia-smi and CUDA_VISIBLE_DEVICES" in _refusal()


def test_cuda_with_a_device(fake_cupy):
    cupy = fake_cupy(1)
    assert backend.cuda_problem() is None
    assert backend.default_device() == "cuda"
    x = minilm.tensor([1.0, 2.0], device="cuda")
    assert x.device == "cuda"
    assert backend.array_module(x.data) is cupy
    assert x.numpy().tolist() == [1, 2]
    assert x.to("cpu").device == "cpu"


def test_mixing_devices_names_both(fake_cupy):
    fake_cupy(1)
    here, there = minilm.tensor([1.0, 2.0]), minilm.tensor([1.0, 2.0], device="cuda")
    for call in (
        lambda: here + there,
        lambda: ops.where(here > 1, there, 0.0),
        lambda: ops.layer_norm(there, here.data),
    ):
        with pytest.raises(
            ValueError, match=r'different devices, cpu and cuda; move them together with \.to\("cuda"\)'
        ):
            call()


def test_an_unknown_device():
    with pytest.raises(ValueError, match="device is 'cpu' or 'cuda', not 'tpu'"):
        backend.to_device(np.zeros(1), "tpu")


def test_to_the_cpu_copies_nothing():
    x = np.zeros(3)
    assert backend.to_device(x, "cpu") is x
    assert backend.to_numpy(x) is x


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "float32"),
        ([1.5, 2], "float32"),
        ([[1, 2]], "int64"),
        (True, "bool"),
        (np.float64(2), "float64"),
        (np.zeros(2), "float64"),
        (np.zeros(2, np.float16), "float16"),
        ((), "float32"),
    ],
)
def test_as_array_keeps_dtypes_and_makes_python_floats_float32(value, dtype):
    array = backend.as_array(value)
    assert isinstance(array, np.ndarray)
    assert array.dtype == dtype
    assert backend.as_array(array) is array


@pytest.mark.parametrize("name", backend.DTYPES)
def test_every_dtype_makes_a_tensor(name):
    x = minilm.tensor([0, 1], dtype=name)
    assert x.dtype.name == name
    assert x.to("float32").tolist() == [0, 1]
    assert backend.resolve_dtype(x.dtype) == x.dtype


def test_tensors_are_in_the_processors_order_of_bytes():
    x = minilm.tensor(np.array([1.0, 2.0], ">f4"), requires_grad=True)
    assert x.dtype == np.float32
    assert x.dtype.isnative
    x.softmax().sum().backward()
    assert x.tolist() == [1, 2]
    assert minilm.tensor(np.array([3], ">i8")).tolist() == [3]


def test_bfloat16_is_ml_dtypes():
    assert backend.bfloat16() == np.dtype(ml_dtypes.bfloat16)
    x = minilm.tensor([1.0, 1.0 + 2**-8], dtype="bfloat16", requires_grad=True)
    assert x.tolist() == [1, 1]
    x.to("float32").sum().backward()
    assert x.grad.dtype == backend.bfloat16()


@pytest.mark.parametrize("dtype", ["float23", None, "cuda"])
def test_what_is_no_dtype(dtype):
    with pytest.raises(TypeError, match=r"is no dtype; use one of float32, .*bfloat16"):
        backend.resolve_dtype(dtype)


# Random streams.


def _draw(stream: Generator) -> list:
    return [
        stream.normal((3,)).tolist(),
        stream.uniform((2, 2), dtype="float64").tolist(),
        stream.integers(0, 10, (4,)).tolist(),
        stream.permutation(5).tolist(),
        stream.seed64(),
    ]


@given(st.integers(0, 2**64), st.integers(0, 3))
def test_state_goes_through_json(seed, drawn_before):
    stream = Generator(seed)
    for _ in range(drawn_before):
        stream.integers(0, 3)  # leaves half of a word behind, which the state must hold too
    text = json.dumps(stream.state())
    expected = _draw(stream)
    other = Generator(1)
    other.set_state(json.loads(text))
    assert _draw(other) == expected
    assert other.state() == stream.state()


def test_seeds_and_streams():
    assert _draw(Generator(3)) == _draw(Generator(3))
    assert _draw(Generator(3)) != _draw(Generator(4))
    minilm.manual_seed(3)
    assert _draw(backend.default_generator) == _draw(Generator(3))


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="PCG64 stream, got 'MT19937'"):
        Generator(0).set_state({"bit_generator": "MT19937"})


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", np.float64])
def test_draws_have_the_dtype_and_the_moments_asked_for(dtype):
    stream = Generator(0)
    normal = stream.normal((200, 100), std=0.5, mean=2.0, dtype=dtype)
    uniform = stream.uniform((200, 100), -1.0, 3.0, dtype=dtype)
    assert normal.dtype == uniform.dtype == backend.resolve_dtype(dtype)
    wide = normal.astype(np.float64), uniform.astype(np.float64)
    assert abs(wide[0].mean() - 2) < 0.02
    assert abs(wide[0].std() - 0.5) < 0.02
    assert abs(wide[1].mean() - 1) < 0.05
    assert wide[1].min() >= -1
    assert wide[1].max() <= 3
    if normal.dtype == np.float64:
        assert (normal != normal.astype(np.float32)).any()  # drawn in float64, not widened to it


def test_a_number_may_be_drawn():
    assert Generator(0).normal(()).shape == ()
    assert Generator(0).integers(0, 5).shape == ()


# Memory.


def test_memory_is_kept_for_reuse_and_counted():
    """In a process of its own: the setting lasts."""
    program = """
import numpy as np
from minilm import backend
accepted = backend.reuse_memory()
before = backend.peak_memory()
x = np.ones(40_000_000, np.uint8)
print(accepted, backend.peak_memory() - before >= 30_000_000, before > 1_000_000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    accepted, grew, sensible = done.stdout.split()
    assert accepted == str(sys.platform.startswith("linux"))
    assert grew == sensible == "True"


def test_objects_are_kept_from_the_collector_for_a_while():
    def interrupted():
        with backend.keep_objects():
            assert gc.get_freeze_count() > 1000
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        interrupted()
    assert gc.get_freeze_count() == 0


# A GPU's memory.


def test_a_gpus_memory_is_reported(cuda_standin):
    pool = cuda_standin.get_default_memory_pool()
    pool.used, pool.total = 3 * 2**30, 5 * 2**30
    memory = backend.gpu_memory()
    assert (memory.used, memory.held, memory.free, memory.total) == (3 * 2**30, 5 * 2**30, 79 * 2**30, 80 * 2**30)
    assert memory.available == 81 * 2**30
    assert str(memory) == "3.0 GiB in arrays, 5.0 GiB held, 79.0 GiB free of 80.0 GiB"
    assert backend.peak_memory("cuda") == 5 * 2**30
    backend.release_memory()
    assert backend.gpu_memory().held == 3 * 2**30
    assert backend.gpus() == [backend.Gpu("Stand-in", (9, 0), 80 * 2**30, 79 * 2**30)]


def test_no_gpu_has_no_memory(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert backend.gpus() == []
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used here: the package CuPy is not installed"):
        backend.gpu_memory()
    backend.release_memory()


def test_out_of_memory_says_what_there_is_and_what_to_lower(cuda_standin):
    pool = cuda_standin.get_default_memory_pool()
    pool.used, pool.total = 60 * 2**30, 70 * 2**30
    cuda_standin.cuda.runtime.memGetInfo = lambda: (2**30, 80 * 2**30)
    with (
        pytest.raises(
            backend.OutOfMemoryError, match=r"20\.0 GiB more were asked for, and 11\.0 GiB of 80\.0 GiB"
        ) as caught,
        backend.guard_memory(),
    ):
        raise cuda_standin.cuda.memory.OutOfMemoryError(20 * 2**30, 70 * 2**30)
    assert caught.value.requested == 20 * 2**30
    assert caught.value.memory.available == 11 * 2**30
    assert "9.0 GiB belong to other programs); lower the batch size" in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert pool.total == pool.used  # given back, for a smaller attempt
    with pytest.raises(backend.OutOfMemoryError, match="more memory was asked for"), backend.guard_memory():
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")


@pytest.mark.parametrize("error", [MemoryError("of the host"), RuntimeError("something else"), ValueError("no")])
def test_other_errors_pass_the_guard(error, cuda_standin):
    with pytest.raises(type(error), match=str(error)) as caught, backend.guard_memory():
        raise error
    assert caught.value is error


@pytest.mark.gpu
def test_a_card_runs_out_of_memory():
    total = backend.gpu_memory().total
    with pytest.raises(backend.OutOfMemoryError) as caught, backend.guard_memory():
        backend.array_module(backend.to_device(np.zeros(1), "cuda")).empty(2 * total, np.uint8)
    assert caught.value.requested >= 2 * total


NUMBERS = [0.0, -0.0, 0, 7, -1.5, np.inf, -np.inf, np.nan, np.float32(2), np.float64(2), True]
SPREAD = [
    ((50, 60), (50, 60), (50, 60)),
    ((60,), (50, 60), ()),
    ((50, 60), (60,), (50, 60)),
    ((2, 50, 1), (50, 60), (60,)),
]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", ml_dtypes.bfloat16])
@pytest.mark.parametrize("shapes", SPREAD, ids=str)
def test_where_gives_numpys_bits(dtype, shapes, rng):
    condition = rng.random(shapes[0]) < 0.5
    with np.errstate(invalid="ignore"):
        a, b = ((4 * rng.standard_normal(shape)).astype(dtype) for shape in shapes[1:])
    a.reshape(-1)[:3] = 0 if dtype == "int32" else (np.nan, -np.inf, -0.0)
    pairs = [(a, b), (b, a), (a[..., ::-1], b), *((a, n) for n in NUMBERS), *((n, a) for n in NUMBERS)]
    for each in pairs:
        for where in (condition, condition.astype(np.int8), condition[..., ::-1]):
            expected = np.where(where, *each)
            found = portable.where(where, *each)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes()
