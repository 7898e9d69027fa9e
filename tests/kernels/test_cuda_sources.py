"""CUDA sources compile for five architectures without a GPU, within their budgets of registers and without spills."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from minilm_kernels import cuda
from minilm_kernels.cuda import budgets, compiler, cubins, nvrtc

try:
    nvrtc.library()
    MISSING = None
except cuda.NvrtcMissing as error:
    MISSING = str(error)

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

FILES = budgets.budget_files()
ADD = """#include "common.cuh"
extern "C" __global__ void add(SCALAR* x, int n) {
    __shared__ float total[4];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = block_sum(i < n ? to_float(x[i]) : 0.0f, total);
    if (i < n) x[i] = from_float<SCALAR>(sum);
}
"""


@pytest.fixture(scope="module")
def pool():
    """Two processes that compile: NVRTC lets the threads of one take turns."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "add.cu"
    path.write_text(ADD)
    return path


@pytest.mark.parametrize("target", budgets.TARGETS)
@pytest.mark.parametrize("file", FILES, ids=[file.parent.name for file in FILES])
def test_sources_keep_to_their_budgets(file, target, pool):
    variants = [variant for variant in budgets.variants(file) if target in variant.targets]
    found = pool.map(budgets.complaints, variants, [target] * len(variants))
    assert list(itertools.chain.from_iterable(found)) == []


def test_every_source_has_a_budget():
    """A .cu file that no budget names would never be compiled here."""
    package = Path(cuda.__file__).parents[1]
    named = {variant.path for file in FILES for variant in budgets.variants(file)}
    assert set(package.rglob("*.cu")) == named


@pytest.mark.parametrize("scalar", ["float", "f16", "bf16"])
def test_compiled_without_a_gpu(source, scalar):
    compiled = cuda.compile_source(source, "sm_80", {"SCALAR": scalar})
    used = compiled.resources["add"]
    assert compiled.cubin[:4] == b"\x7fELF"
    assert 0 < used.registers < 40
    assert (used.spill_stores, used.spill_loads, used.shared_bytes) == (0, 0, 16)


def test_spills_are_found(tmp_path):
    path = tmp_path / "spilling.cu"
    values = "".join(f"float v{i} = x[{i} * n];" for i in range(64))
    path.write_text(
        f'extern "C" __global__ __launch_bounds__(1024, 2) void spilling(float* x, int n) {{ {values} __syncthreads(); '
        + "".join(f"x[{i}] = v{i} * v{(i * 7 + 1) % 64};" for i in range(64))
        + "}"
    )
    used = cuda.compile_source(path, "sm_80").resources["spilling"]
    assert used.spill_stores > 0
    complaints = budgets.complaints(budgets.Variant(path, {}, ("sm_80",), {"spilling": 10}), "sm_80")
    assert "spills" in complaints[0]
    assert "more than its 10" in complaints[1]


def test_an_error_names_the_file_and_the_line(source):
    source.write_text(ADD + "\nint wrong = ;\n")
    with pytest.raises(cuda.CompileError, match=r"does not compile for sm_90 with -DSCALAR=f16") as caught:
        cuda.compile_source(source, "sm_90", {"SCALAR": "f16"})
    assert f"{source}(9): error" in str(caught.value)


def test_a_missing_header_is_named(source):
    source.write_text('#include "nowhere.cuh"\n')
    with pytest.raises(FileNotFoundError, match=r'includes "nowhere\.cuh", which is neither in'):
        compiler.sources(source)


def test_without_nvrtc(monkeypatch):
    monkeypatch.setattr(nvrtc, "_candidates", lambda: ["libnowhere.so"])
    nvrtc.library.cache_clear()
    try:
        with pytest.raises(cuda.NvrtcMissing, match="pip install nvidia-cuda-nvrtc"):
            nvrtc.library()
    finally:
        nvrtc.library.cache_clear()


def test_what_does_not_say_where_it_runs_is_the_devices(source):
    """As NVRTC 13.5 has it with lambdas of any argument by itself, and 13.0 has not."""
    source.write_text(
        "inline float twice(float x) { return 2 * x; }\n"
        'extern "C" __global__ void f(float* x) { auto g = [&](auto y) { return twice(y); }; x[0] = g(x[0]); }\n'
    )
    assert set(compiler.compile_source(source, "sm_80").resources) == {"f"}


def test_the_compilers_builtins_are_loaded_from_beside_it(tmp_path, monkeypatch):
    """NVRTC opens them by name when it compiles, and in the wheels of CUDA 13.0 it has no path to where it lies."""
    (tmp_path / "empty.c").write_text("const char* nvrtcGetErrorString(int status) { return 0; }\n")
    files = [tmp_path / name for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0")]
    for file in files:
        subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", tmp_path / "empty.c", "-o", file], check=True)
    monkeypatch.setattr(nvrtc, "_candidates", lambda: [str(files[0])])
    nvrtc.library.__wrapped__()
    loaded = Path("/proc/self/maps").read_text()
    assert all(str(file) in loaded for file in files)


def test_a_cubin_is_compiled_once_for_each_content(source, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    count = 0

    def compile_source(*args):
        nonlocal count
        count += 1
        return compiler.compile_source(*args)

    monkeypatch.setattr(cubins, "compile_source", compile_source)
    header = tmp_path / "more.cuh"
    header.write_text("constexpr int MORE = 1;\n")
    source.write_text('#include "more.cuh"\n' + ADD)
    first = cubins.cubin(source, "sm_80", {"SCALAR": "f16"}, ())
    assert cubins.cubin(source, "sm_80", {"SCALAR": "f16"}, ()) == first
    assert count == 1
    for change in (
        ("sm_90", {"SCALAR": "f16"}, ()),
        ("sm_80", {"SCALAR": "bf16"}, ()),
        ("sm_80", {"SCALAR": "f16"}, ("--use_fast_math",)),
    ):
        cubins.cubin(source, *change)
    assert count == 4
    header.write_text("constexpr int MORE = 2;\n")
    cubins.cubin(source, "sm_80", {"SCALAR": "f16"}, ())
    assert count == 5
    kept = sorted(path.suffix for path in cubins.folder(source).iterdir())
    assert kept == [".cubin"] * 5  # nothing half-written was left


def test_where_nothing_can_be_written_a_cubin_is_made_each_time(source, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked))
    assert cubins.folder(source) is None
    assert cubins.cubin(source, "sm_80", {"SCALAR": "float"}, ())[:4] == b"\x7fELF"


def test_a_budget_with_other_words_is_refused(tmp_path):
    file = tmp_path / "budgets.toml"
    file.write_text('[[variant]]\nsource = "x.cu"\nregister = { x = 3 }\n')
    with pytest.raises(ValueError, match="no kernel in registers"):
        budgets.variants(file)


def test_the_package_does_not_import_cupy():
    code = "import sys, minilm_kernels.cuda; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
