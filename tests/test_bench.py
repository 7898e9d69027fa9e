"""`minilm bench` and `minilm check-kernel`, as a user runs them."""

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from minilm_kernels import registry
from minilm_kernels.bench import machine, peers
from minilm_kernels.bench.choices import variants
from minilm_kernels.bench.command import main
from minilm_kernels.bench.problem import Problem
from minilm_kernels.bench.results import COLUMNS
from minilm_kernels.bench.workload import workload, workloads

from minilm.cli.main import main as minilm_main

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
QUICK = ["--rounds", "2", "--seconds", "0.05", "--peers", "none"]

WRONG = """
from minilm_kernels import registry

@registry.register("rms_norm", name="mine", device="cpu", dtypes=("float32",))
def rms_norm(x, weight, *, eps):
    y, rstd = registry.implementations("rms_norm")[-1].function(x, weight, eps=eps)
    return (y * 1.001 if x.shape[-1] == 65 else y), rstd
"""


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    """Small measurements of the machine: no test looks at the number."""
    measured = machine.ceilings
    monkeypatch.setattr(machine, "ceilings", lambda dtype: measured(dtype, n=64, count=2**12))


def minilm(*arguments):
    command = [sys.executable, "-m", "minilm.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=ENVIRONMENT)


def file_with(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def readable(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_a_file_and_two_pictures(tmp_path, capsys):
    files = [tmp_path / name for name in ("rows.csv", "rates.png", "roofline.pdf")]
    flags = [word for flag, file in zip(("--csv", "--plot", "--roofline"), files) for word in (flag, str(file))]
    assert main(["layer_norm", "--shapes", "4,8;16,8;3,5", *QUICK, *flags]) == 0
    output = capsys.readouterr().out
    for word in ("layer_norm forward, float32: N=4, C=8", "layer_norm backward", "median", "GB/s", "reference", "cpu"):
        assert word in output
    assert "WRONG" not in output
    rows = readable(files[0])
    assert tuple(rows[0]) == COLUMNS
    assert {row["metric"] for row in rows} == {
        *("max_abs_error", "max_rel_error", "memory", "time", "rate", "bandwidth", "ceiling")
    }
    assert {(row["provider"], row["mode"], row["x_value"]) for row in rows} == {
        (provider, mode, x)
        for provider in ("cpu", "reference")
        for mode in ("forward", "backward")
        for x in ("4", "16", "3")
    }
    for row in rows:
        assert row["x_name"] == "N"
        assert "numpy" in row["versions"]
        assert json.loads(row["sizes"])["N"] == int(row["x_value"])
        if row["metric"] == "time":
            assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"])
            assert row["unit"] == "ms"
            assert json.loads(row["settings"])["samples"] >= 1
        if row["metric"] == "max_rel_error":
            assert float(row["p50"]) < 1e-5
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert files[2].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", workloads())
def test_every_operation_can_be_timed(name, capsys):
    shape = ",".join(str(6 * workload(name).multiple_of.get(size, 1)) for size in workload(name).sizes)
    assert main([name, "--shapes", shape, *QUICK]) == 0
    output = capsys.readouterr().out
    for mode in workload(name).passes():
        assert f"{name} {mode}, float32" in output
    assert len(re.findall(r"^  reference .* ms ", output, re.MULTILINE)) >= len(workload(name).passes())


@pytest.mark.parametrize("name", workloads())
def test_torch_agrees(name, torch):
    """Peers are held against the reference too: one that computed something else would be no peer."""
    found = workload(name)
    parameters = {size: 6 * found.multiple_of.get(size, 1) for size in found.sizes}
    for mode in found.passes():
        for options in variants(found, {}):
            problem = Problem(found, mode, {**parameters, **options}, "float32")
            for opponent in peers.opponents("torch", problem):
                verdict = problem.verdict(opponent.results(), slack=16, partial=True)
                assert verdict.ok, f"{opponent.name} {mode}: {verdict.fault}"
                with opponent.context():
                    opponent.call()


def test_torch_is_a_peer_in_the_table(torch, capsys):
    assert main(["attention", "--shapes", "1,2,16,8", "--causal", "true", "--rounds", "2", "--seconds", "0.05"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"torch sdpa flash +\d", output)
    assert "ratio: times faster than torch sdpa flash" in output
    assert "causal=True" in output
    assert "causal=False" not in output


def test_float64_and_half_precision(capsys):
    assert main(["rms_norm", "--shapes", "6,10", "--dtype", "float64,float16", *QUICK]) == 0
    output = capsys.readouterr().out
    assert "rms_norm backward, float64" in output
    assert re.search(r"cpu +not run: .*it takes float32, float64, and the arrays are float16", output)


def test_a_wrong_kernel_has_an_error_and_no_time(tmp_path):
    path, results = file_with(tmp_path, WRONG), tmp_path / "rows.csv"
    run = minilm(
        "bench", "rms_norm", "--include", path, "--pass", "fwd", "--shapes", "3,64;3,65", "--csv", results, *QUICK
    )
    assert run.returncode == 1
    assert re.search(r"mine +\d.* ms", run.stdout), "it is right at C = 64, and has a time"
    assert re.search(r"mine +WRONG: result 0 is off by \S+ at \(\d, \d+\), [\d,.]+ times the \S+ allowed", run.stdout)
    assert "WRONG: rms_norm forward by mine at 3,65" in run.stderr
    wrong = [row for row in readable(results) if row["provider"] == "mine" and '"C": 65' in row["sizes"]]
    assert {row["metric"] for row in wrong} == {"max_abs_error", "max_rel_error"}
    assert 5e-4 < float(wrong[1]["p50"]) < 2e-3


def test_what_contributing_shows_runs(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n# mine.py\n(.*?)```", text, re.DOTALL)
    path = file_with(tmp_path, block)
    run = minilm("check-kernel", path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"rms_norm by 'mine', float32: right in (\d+) of \1 cases", run.stdout)
    run = minilm("bench", "rms_norm", "--include", path, "--shapes", "4,16", *QUICK)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"mine +\d", run.stdout)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no operation is named; expected 'all' or some of: adamw, "),
        (["atention"], "there is no operation 'atention'; did you mean 'attention'?"),
        (["attention", "--shapes", "1,2"], "'1,2' is no shape of attention; expected 4 positive integers B,H,T,D"),
        (["gelu", "--shapes", "big"], "'big' is no shape of gelu; expected N,C as in '4096,768', several with ;"),
        (["gelu", "--shapes", "0,4"], "expected 2 positive integers N,C"),
        (["gelu", "--pass", "forward"], "there is no pass 'forward'; did you mean"),
        (["dropout", "--pass", "bwd"], "dropout has no backward pass; it has: forward"),
        (["gelu", "--implementations", "cuda"], "there is no implementation 'cuda'; there are: cpu, reference"),
        (["gelu", "--dtype", "int8"], "there is no dtype 'int8'"),
        (["gelu", "--causal", "true"], "unknown argument '--causal'; besides those of every operation, gelu has"),
        (["quantize", "--shapes", "4,33"], "'4,33' is no shape of quantize; expected K to be a multiple of 32"),
        (["gelu", "--approximate"], "--approximate needs a value, as in --approximate none,tanh"),
        (["gelu", "--peers", "tensorflow"], "there is no peer 'tensorflow'; there are: torch, or 'none'"),
        (["gelu", "--rounds", "0"], "--rounds 0 and --seconds 2.0; expected more than 0 of both"),
        (["gelu", "--include", "nowhere.py"], "there is no file nowhere.py"),
        (["gelu", "--plot", "rates.txt"], "can't draw rates.txt: expected a name that ends in one of"),
        (["gelu", "--csv", "nowhere/rows.csv"], "can't write nowhere/rows.csv: there is no folder nowhere"),
    ],
)
def test_errors_say_what_to_do(arguments, error, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments, prog="minilm bench") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("minilm bench: error: ")
    assert error in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "arguments", "error"),
    [
        ("torch", ["--peers", "torch"], "the peer torch is not installed: pip install torch, or choose --peers none"),
        ("matplotlib", ["--plot", "a.png"], "pictures need matplotlib, which is not installed: pip install matplotlib"),
    ],
)
def test_what_is_missing_is_named(module, arguments, error, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib.lines", None)
    assert main(["gelu", *arguments]) == 2
    assert error in capsys.readouterr().err


def test_a_table_without_ratios_says_why(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["gelu", "--shapes", "4,8", "--pass", "fwd", "--rounds", "1"]) == 0
    assert "compared with nothing else: pip install torch for a ratio" in capsys.readouterr().out


def test_the_list_and_the_help(capsys):
    assert main(["--list"]) == 0
    output = capsys.readouterr().out
    assert "attention (forward, backward), sizes B,H,T,D" in output
    assert "--shapes default: 12,6,256,64; 4,6,256,64; 2,12,1024,64; 1,12,4096,64; 1,16,2048,128; 12,4,64,32" in output
    assert "--causal false,true" in output
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--include FILE" in capsys.readouterr().out
    assert minilm_main(["--help"]) == 0
    output = capsys.readouterr().out
    assert "  bench " in output
    assert "  check-kernel " in output


def test_the_lab_needs_nothing_of_minilm():
    code = (
        "import sys\n"
        "for name in ('minilm', 'rich', 'tyro', 'torch', 'matplotlib'): sys.modules[name] = None\n"
        "from minilm_kernels.bench.command import main\n"
        "sys.exit(main(['gelu', '--shapes', '4,8', '--rounds', '1', '--peers', 'none']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "bench" not in registry.operations()


@pytest.mark.parametrize(
    ("span", "labels"), [((1.5, 60), ["2", "5", "10", "20", "50"]), ((0.02, 2e4), ["0.1", "1", "10"])]
)
def test_a_logarithmic_axis_has_plain_numbers_that_do_not_overlap(span, labels):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from matplotlib.figure import Figure
    from minilm_kernels.bench.plots import _plain_ticks

    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=span)
    _plain_ticks(axes.xaxis)
    figure.draw_without_rendering()
    shown = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
    inside = [label for label in shown if span[0] <= label.get_position()[0] <= span[1]]
    assert [label.get_text() for label in inside][: len(labels)] == labels
    boxes = [label.get_window_extent() for label in inside]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
