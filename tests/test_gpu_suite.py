"""The script for a borrowed card, with everything that it would run replaced: parts that pass, fail, hang and lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_suite.sh"

# Stands for Python: says that there is a GPU, and does in the parts' place what the test wants.
PYTHON = """#!/usr/bin/env bash
case "$*" in
*find_spec*transformers*) exit 1 ;;
*find_spec*) exit 0 ;;
*cuda_problem*) echo ;;
*getDeviceProperties*) echo stand_in ;;
*describe*) echo "Stand-in, 80 GiB" ;;
*-m\\ pip*) echo numpy==2.0.0 ;;
*gpu_summary*) exec {python} "$@" ;;
*-m\\ pytest*kernels) echo "FAILED test_it.py::test_that (call)" >"$MINILM_FAILURES"; exit 1 ;;
*-m\\ pytest*) echo "12 passed in 3.00s, accelerators '${{CUPY_ACCELERATORS-unset}}'" ;;
*losses*) echo "no such luck" >&2 && exit 3 ;;
*decode.py*) sleep 100 ;;
*bench\\ attention*numba_cuda*) exit 0 ;;
*bench\\ attention*) for last; do :; done; cp {rows} "$last" ;;
*) echo "not to be run: $*" && exit 9 ;;
esac
"""

ROWS = """\
provider,mode,metric,unit,p50,sizes,options
cuda,forward,ceiling,%,51.2,"{""T"": 2048, ""D"": 128}","{""causal"": true}"
cuda,forward,ratio,times faster than torch sdpa flash,0.934,"{""T"": 2048, ""D"": 128}","{""causal"": true}"
cuda,forward,ratio,times faster than torch sdpa math,9.1,"{""T"": 2048, ""D"": 128}","{""causal"": true}"
torch sdpa math,forward,ratio,times faster than torch sdpa flash,0.1,"{""T"": 2048, ""D"": 128}","{""causal"": true}"
"""


def suite(*arguments, python=sys.executable):
    environment = {**os.environ, "PYTHON": str(python)}
    environment.pop("CUDA_HOME", None)
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=environment)


@pytest.fixture
def stand_in(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable, rows=rows), encoding="utf-8")
    python.chmod(0o755)
    return python


def test_each_part_has_its_outcome_and_the_summary_comes_last(stand_in, tmp_path):
    out = tmp_path / "results"
    run = suite(
        *("--out", out, "--limit", 26, "--only", "tests,kernel_tests,attention,losses,decoding,training"),
        python=stand_in,
    )
    assert run.returncode == 1
    outcomes = {line.split("|")[0]: line.split("|")[1:] for line in (out / "parts.txt").read_text().splitlines()}
    assert outcomes["tests"][0] == "ran"
    assert outcomes["attention"][0] == "ran"
    assert outcomes["training"] == ["failed", outcomes["training"][1], "exit status 9"]
    assert outcomes["decoding"][0] == "stopped"
    assert outcomes["losses"] == ["left out", "0", "no time was left"]
    assert "not to be run" in (out / "training.log").read_text()
    assert "Stand-in, 80 GiB" in (out / "machine.txt").read_text()
    summary = (out / "summary.txt").read_text()
    assert run.stdout.endswith(summary)
    assert "tests: 12 passed in 3.00s, accelerators ''" in summary
    assert outcomes["kernel_tests"][0] == "failed"
    assert "kernel_tests: 1 failed\nFAILED test_it.py::test_that (call)" in summary
    assert "forward causal T=2048 D=128" in summary
    assert "cuda 51 %, 0.93 x flash" in summary
    assert "math" not in summary
    assert "not installed: transformers" in run.stdout


def test_where_all_goes_well_the_status_is_zero(stand_in, tmp_path):
    run = suite("--out", tmp_path / "results", "--only", "tests", python=stand_in)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("results/*.log")) == [tmp_path / "results" / "tests.log"]


def test_a_dry_run_lists_the_parts_and_runs_nothing(stand_in, tmp_path):
    run = suite("--dry-run", "--out", tmp_path / "results", python=stand_in)
    assert run.returncode == 0
    for part in ("tests", "kernel_tests", "attention", "kernels", "training", "losses", "decoding", "numba_cuda"):
        assert f"  {part}, " in run.stdout
    assert "-m pytest -m gpu" in run.stdout
    assert not (tmp_path / "results").exists()
    limits = [int(line.split(", ")[1].split()[0]) for line in run.stdout.splitlines() if " s at most: " in line]
    assert min(limits) >= 30


def test_without_a_gpu_it_says_so(tmp_path):
    from minilm.backend import cuda_problem

    problem = cuda_problem()
    if problem is None:
        pytest.skip("there is a GPU")
    run = suite("--out", tmp_path / "results")
    assert run.returncode == 1
    assert f"no GPU can be used here: {problem}" in run.stderr
    assert not (tmp_path / "results").exists()


def test_without_what_it_needs_it_says_what(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    run = suite(python=python)
    assert run.returncode == 1
    assert "lacks numpy numba ml_dtypes safetensors" in run.stderr
    assert suite("--fast").returncode == 2
    assert suite("--only", "nothing").returncode == 2


@pytest.mark.parametrize("arguments", [["train_step.py"], ["decode.py", "random"]])
def test_the_benchmarks_say_what_is_missing_for_a_gpu(arguments):
    from minilm.backend import cuda_problem

    if cuda_problem() is None:
        pytest.skip("there is a GPU")
    script, *rest = arguments
    command = [sys.executable, str(ROOT / "benchmarks" / script), *rest, "--device", "cuda"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    run = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=environment, cwd=ROOT
    )
    assert run.returncode == 2
    assert f"--device cuda can't be used here: {cuda_problem()}" in run.stderr
