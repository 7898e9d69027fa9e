"""The lab on a GPU, as far as it shows without one: on CuPy's stand-in, with a clock of its own; and on a GPU."""

from __future__ import annotations

import csv
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from minilm_kernels.bench.checking import Case, check
from minilm_kernels.bench.command import main
from minilm_kernels.bench.cuda import Cuda
from minilm_kernels.bench.device import laid_out
from minilm_kernels.bench.errors import LabError
from minilm_kernels.bench.measure import Row
from minilm_kernels.bench.problem import Problem, Verdict
from minilm_kernels.bench.table import header, lines, title
from minilm_kernels.bench.timing import DeviceTimer, Timed, alternate
from minilm_kernels.bench.workload import workload, workloads


class Clock:
    """A device that works off what is queued, one thing after another, and a host that needs no time."""

    def __init__(self):
        self.now, self.flushes = 0.0, 0

    def work(self, seconds):
        self.now += seconds

    def flush(self):
        self.flushes += 1
        self.work(1e-4)

    def timer(self):
        return DeviceTimer(
            flush=self.flush,
            record=lambda: self.now,
            elapsed=lambda start, stop: stop - start,
            synchronize=lambda: None,
        )


@pytest.fixture
def card(cuda_standin, monkeypatch):
    """The stand-in, with events, a cache and a memory hook, and small measurements of the card."""

    class Hook:
        def __enter__(self):
            self.malloc_postprocess(device_id=0, size=500, mem_size=512, mem_ptr=1, pmem_id=1)
            self.malloc_postprocess(device_id=0, size=1024, mem_size=1024, mem_ptr=2, pmem_id=2)
            self.free_postprocess(device_id=0, mem_size=512, mem_ptr=1, pmem_id=1)
            self.malloc_postprocess(device_id=0, size=400, mem_size=512, mem_ptr=3, pmem_id=3)

        def __exit__(self, *error):
            pass

    cuda = cuda_standin.cuda
    event = lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    monkeypatch.setattr(cuda, "Event", event, raising=False)
    monkeypatch.setattr(cuda, "get_elapsed_time", lambda start, stop: 2.0, raising=False)
    monkeypatch.setattr(cuda, "Device", lambda: SimpleNamespace(attributes={"L2CacheSize": 2**20}), raising=False)
    monkeypatch.setattr(cuda, "MemoryHook", Hook, raising=False)
    measured = Cuda.ceilings
    monkeypatch.setattr(Cuda, "ceilings", lambda self, dtype: measured(self, dtype, n=16, count=2**8))
    return cuda_standin


def test_times_are_the_devices():
    clock = Clock()
    slow, fast = Timed(lambda: clock.work(3e-3)), Timed(lambda: clock.work(1e-3))
    alternate([slow, fast], 3, clock.timer())
    np.testing.assert_allclose(slow.samples, 3e-3)
    np.testing.assert_allclose(fast.samples, 1e-3)
    assert (slow.calls, fast.calls) == (1, 2)  # as many as take two milliseconds


def test_the_cache_is_flushed_before_each_call_until_the_host_is_ahead(monkeypatch):
    clock, host = Clock(), SimpleNamespace(now=0.0)
    monkeypatch.setattr("minilm_kernels.bench.timing.time.perf_counter", lambda: host.now)

    def call():  # queued by the host in half a millisecond, which the device spends on nothing
        host.now += 5e-4
        clock.work(1e-5)

    timer = clock.timer()
    assert timer.warm_up(call) == pytest.approx(1e-5)
    clock.flushes = 0
    assert timer.seconds(call, 3) == pytest.approx(1e-5)
    assert clock.flushes == 3 * 11  # a flush takes a tenth of a millisecond: twice the host's time of them, and one


def test_a_table_and_a_file(card, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    arguments = ["layer_norm", "--device", "cuda", "--dtype", "float32", "--implementations", "reference"]
    assert main([*arguments, "--shapes", "4,8", "--peers", "none", "--rounds", "2", "--csv", str(path)]) == 0
    output = capsys.readouterr().out
    assert "Stand-in, 80 GiB, compute capability 9.0, CUDA 13.0, driver for 13.0; python" in output
    assert "layer_norm forward, float32: N=4, C=8" in output
    assert "layer_norm backward, float32" in output
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} == {"Stand-in, 80 GiB, compute capability 9.0, CUDA 13.0, driver for 13.0"}
    assert {row["p50"] for row in rows if row["metric"] == "time"} == {"2"}
    assert {row["p50"] for row in rows if row["metric"] == "memory"} == {f"{1536 / 2**20:.6g}"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in workloads() if name != "decoder_step"])  # which is the CPU's
def test_a_problem_on_the_device(name, dtype, card):
    found = workload(name)
    options = {option: values[0] for option, values in found.options.items()}
    sizes = {size: 6 * found.multiple_of.get(size, 1) for size in found.sizes}
    for mode in found.passes():
        there = Problem(found, mode, {**sizes, **options}, dtype, device=Cuda())
        results = there.run("reference")
        arrays = [x for x in results if hasattr(x, "nbytes")]
        assert all(isinstance(array, card.ndarray) for array in arrays)
        assert there.verdict(results).ok, there.verdict(results).fault
        if any(array.dtype.kind == "f" for array in arrays):
            wrong = tuple(x + 100 if isinstance(x, card.ndarray) else x for x in results)
            assert "is off by" in there.verdict(wrong).fault
        if dtype == "float32":
            here = Problem(found, mode, {**sizes, **options}, dtype)
            assert here.verdict(tuple(x.get() if isinstance(x, card.ndarray) else x for x in results)).ok


@pytest.mark.parametrize("layout", workload("softmax").layouts)
def test_layouts_on_the_device(layout, card):
    found = workload("softmax")
    parameters = {"N": 5, "C": 7, **{option: values[0] for option, values in found.options.items()}}
    assert check(found, "forward", "reference", "float32", Case(parameters, layout, 0), Cuda()) == "right"
    host = np.arange(12.0).reshape(3, 4)
    there = Cuda().put(host, layout)
    assert isinstance(there, card.ndarray)
    np.testing.assert_array_equal(there.get(), host)
    if layout != "readonly":
        assert there.strides == laid_out(host, layout).strides


def test_a_kernel_that_writes_to_its_inputs_is_found_on_the_device(card):
    def writes(x, *, axis):
        x[...] = 0
        return x

    found = workload("softmax")
    problem = Problem(found, "forward", {"N": 3, "C": 4, "masked": False, "axis": -1}, "float32", device=Cuda())
    problem.call = lambda implementation, inputs: lambda: writes(*inputs.args, axis=-1)
    with pytest.raises(ValueError, match="it wrote to input array 0"):
        problem.run("mine")


def test_several_peers_have_a_ratio_each():
    sizes = {"T": 4}
    common = {"operation": "attention", "mode": "forward", "sizes": sizes, "options": {}, "shown": {}, "x": "T"}
    mine = Row(provider="cuda", dtype="bfloat16", **common, verdict=Verdict(), seconds=np.array([1e-3]), flops=1e9)
    mine.ratios = {"torch sdpa flash": 1.25, "torch sdpa cudnn": 0.5}
    flash = Row(provider="torch sdpa flash", dtype="bfloat16", **common, verdict=Verdict(), seconds=np.array([1e-3]))
    flash.ratios = {"torch sdpa cudnn": 0.4}
    rows = [mine, flash]
    assert title(rows).endswith("/: times faster than torch sdpa flash, torch sdpa cudnn")
    assert header(rows).split()[-2:] == ["/flash", "/cudnn"]
    assert [line.split()[-2:] for line in lines(rows)] == [["1.25", "0.50"], ["-", "0.40"]]


def test_every_backend_of_torch_is_forced_by_name_on_a_gpu(torch):
    peers = workload("attention").torch(torch, "forward", {"causal": True})
    assert [peer.name for peer in peers if "cuda" in peer.devices] == [
        f"torch sdpa {name}" for name in ("flash", "cudnn", "efficient", "math")
    ]
    assert [peer.name for peer in peers if "cpu" in peer.devices] == ["torch sdpa flash"]
    backends = torch.backends.cuda
    for peer in peers:
        with peer.context():
            enabled = (
                backends.flash_sdp_enabled(),
                backends.cudnn_sdp_enabled(),
                backends.mem_efficient_sdp_enabled(),
                backends.math_sdp_enabled(),
            )
            assert sum(enabled) == 1
            assert ("flash", "cudnn", "efficient", "math")[enabled.index(True)] in peer.name


def test_where_there_is_no_gpu_it_says_what_is_missing(capsys, monkeypatch, tmp_path):
    from minilm_kernels.bench import cuda

    def missing():
        raise LabError("device cuda needs CuPy, which does not import here")

    monkeypatch.setattr(cuda, "_loaded", missing)
    assert main(["gelu", "--device", "cuda"]) == 2
    assert "error: device cuda needs CuPy" in capsys.readouterr().err
    assert main(["check-kernel", str(tmp_path / "mine.py"), "--device", "cuda"]) == 2
    assert "error: device cuda needs CuPy" in capsys.readouterr().err
    assert main(["--list", "--device", "cuda"]) == 0
    assert "numba_cuda" in capsys.readouterr().out


def test_no_cupy_no_driver_and_no_card(cuda_standin):
    with pytest.MonkeyPatch.context() as monkeypatch:  # undone before the stand-in goes
        _says_what_is_missing(cuda_standin, monkeypatch)


def _says_what_is_missing(cuda_standin, monkeypatch):
    monkeypatch.setattr(cuda_standin.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(LabError, match="the driver finds none; check CUDA_VISIBLE_DEVICES"):
        Cuda()

    def no_driver():
        raise cuda_standin.cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(cuda_standin.cuda.runtime, "getDeviceCount", no_driver)
    with pytest.raises(LabError, match=r"needs an NVIDIA GPU and its driver \(cudaErrorInsufficientDriver\)"):
        Cuda()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(LabError, match=r"pip install 'minilm\[cuda13\]'"):
        Cuda()


@pytest.mark.gpu
def test_times_and_memory_on_a_gpu(capsys):
    arguments = ["softmax", "--device", "cuda", "--shapes", "4096,1024", "--dtype", "float32", "--rounds", "3"]
    assert main([*arguments, "--implementations", "reference"]) == 0
    output = capsys.readouterr().out
    assert "softmax forward, float32: N=4096, C=1024" in output
    row = next(line for line in output.splitlines() if line.startswith("  reference"))
    assert "16.0 MiB" in row or float(row.split(" MiB")[0].split()[-1]) >= 16
