"""What the command says of itself and of the machine: `minilm info` and the help."""

import subprocess
import sys

import pytest

from minilm import backend
from minilm.cli.main import main


def test_info(capfd):
    assert main(["info"]) == 0
    output = capfd.readouterr().out
    for name in ("minilm ", "python ", "numpy ", "numba ", "blas ", "sgemm ", "cuda "):
        assert f"\n{name}" in f"\n{output}"
    assert "GFLOP/s" in output


def test_info_where_cupy_is_not_installed(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    assert main(["info"]) == 0
    assert "not usable: the package CuPy is not installed" in capfd.readouterr().out


def test_info_of_a_gpu(capfd, cuda_standin):
    assert main(["info"]) == 0
    output = capfd.readouterr().out
    assert "\ncuda           13.0, driver for 13.0, CuPy 14.2.0\n" in output
    assert "\ngpu            Stand-in, compute 9.0, 80.0 GiB (79.0 GiB free)\n" in output


@pytest.mark.gpu
def test_info_of_this_gpu(capfd):
    pytest.importorskip("tyro", reason="the command line needs tyro, which is not installed")
    assert main(["info"]) == 0
    assert str(backend.gpus()[0]).split(" (")[0] in capfd.readouterr().out


def test_help_is_helpful(capfd):
    assert main(["--help"]) == 0
    output = capfd.readouterr().out
    assert all(f"  {verb} " in output for verb in ("train", "generate", "check", "info"))
    assert main(["--version"]) == 0
    for verb, word in {
        "train": "--optim.lr",
        "generate": "--top-p",
        "check": "--length",
        "info": "minilm info",
    }.items():
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert word in capfd.readouterr().out


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from minilm.cli.main import main; main(['--help']); import minilm.training;"
        "print([m for m in ('rich', 'tyro', 'matplotlib', 'tokenizers', 'numba', 'cupy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
