"""`minilm check-kernel`, as somebody runs it who writes a kernel."""

import os
import re
import subprocess
import sys

import pytest
from minilm_kernels import registry
from minilm_kernels.bench.command import main

ENVIRONMENT = {**os.environ, "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

WRONG = """
from minilm_kernels import registry

@registry.register("rms_norm", name="mine", device="cpu", dtypes=("float32",))
def rms_norm(x, weight, *, eps):
    y, rstd = registry.implementations("rms_norm")[-1].function(x, weight, eps=eps)
    return (y * 1.001 if x.shape[-1] == 65 else y), rstd
"""


@pytest.fixture
def lab(capsys):
    """Runs the lab in this process; what a file registered is forgotten afterwards."""
    for operation in registry.operations():
        registry.implementations(operation)  # loads them all: what is loaded once is not registered a second time
    kept = {operation: dict(entries) for operation, entries in registry._registry.items()}

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, captured.out, captured.err)

    yield run
    registry._registry.clear()
    registry._registry.update(kept)
    registry._candidates.cache_clear()


def file_with(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def minilm(*arguments):
    command = [sys.executable, "-m", "minilm.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=ENVIRONMENT)


def test_check_kernel_names_the_shapes_that_fail(tmp_path, lab):
    run = minilm("check-kernel", file_with(tmp_path, WRONG))
    assert run.returncode == 1
    failures = re.findall(r"WRONG at N=\d+, C=(\d+), .*result 0 is off by", run.stdout)
    assert failures
    assert set(failures) == {"65"}
    assert re.search(r"rms_norm by 'mine', float32: right in \d+ of \d+ cases", run.stdout)
    again = lab("check-kernel", file_with(tmp_path, WRONG))
    assert (again.returncode, again.stdout) == (1, run.stdout)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("x += 1", "ValueError: it wrote to input array 0"),
        ("return x", "it returned 1 results; expected 2"),
        ("return x[..., None], x[..., 0]", r"result 0 has shape \(.*\); expected"),
        ("return x.astype('float64'), x[..., 0]", "result 0 is float64; expected float32"),
        ("return x * float('nan'), x[..., 0]", r"result 0 is nan at \(0, \d+\); expected"),
        ("raise IndexError('no')", "IndexError: no"),
    ],
)
def test_check_kernel_says_what_is_wrong(tmp_path, line, fault, lab):
    text = f"""
from minilm_kernels.registry import register

@register("rms_norm", name="mine", device="cpu", dtypes=("float32",))
def rms_norm(x, weight, *, eps):
    if not x.flags.writeable:
        x = x.copy()
    {line}
    return x, x[..., 0]
"""
    run = lab("check-kernel", file_with(tmp_path, text))
    assert run.returncode == 1
    assert re.search(fault, run.stdout), run.stdout


def test_check_kernel_counts_what_a_kernel_refuses(tmp_path, lab):
    text = """
from minilm_kernels import registry

def odd(g, y, *, axis):
    return None if len(y) % 2 else "only odd rows"

@registry.register("softmax_backward", name="mine", limits=odd)
def softmax_backward(g, y, *, axis):
    return y * (g - (g * y).sum(axis=axis, keepdims=True))

@registry.register("softmax", name="never", limits=lambda x, *, axis: "not today")
def softmax(x, *, axis):
    return x
"""
    run = lab("check-kernel", file_with(tmp_path, text))
    assert run.returncode == 1
    for dtype in ("float32", "float64"):
        assert re.search(rf"softmax_backward by 'mine', {dtype}: right in (\d+) of \1 cases", run.stdout)
        assert f"softmax by 'never', {dtype}: refused every case" in run.stdout
    assert re.search(r"refused \d+: only odd rows", run.stdout)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1\n", r"mine.py registers no kernel; decorate one: @register\("),
        ("import numpy\n\nnumpy.nonsense\n", r"mine.py, line 3: AttributeError: module 'numpy' has no"),
        ("def f(:\n", r"mine.py, line 1: invalid syntax"),
        (
            "from minilm_kernels.registry import register\nregister('atention', name='mine')(print)\n",
            "registers 'atention', and there is no such operation; did you mean 'attention'",
        ),
        (
            "from minilm_kernels.registry import register\nregister('gelu', name='reference')(print)\n",
            "replaces the reference of gelu",
        ),
        (
            "from minilm_kernels.registry import register\nregister('gelu', name='mine', device='cuda')(print)\n",
            "'mine' of gelu runs on cuda",
        ),
    ],
)
def test_files_that_are_no_kernels(tmp_path, text, error, lab):
    run = lab("check-kernel", file_with(tmp_path, text))
    assert run.returncode == 2
    assert re.search(error, run.stderr), run.stderr
    assert "Traceback" not in run.stderr
