"""benchmarks/families.py, run as a learner runs it, on a text that is easily learnt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ["--minutes", "0.02", "--width", "16", "--layers", "1", "--context", "16", "--batch", "4"]


def families(*arguments) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, ROOT / "benchmarks" / "families.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_every_family_is_scored_and_writes(tmp_path):
    (tmp_path / "text.txt").write_text("to be, or not to be: that is the question. " * 50)
    result = families(tmp_path / "text.txt", *SMALL, "--plot", tmp_path / "curves.png")
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")][2:]
    bits = {name: float(value) for name, value, *_ in rows}
    sizes = {name: int(size.split()[0].replace(",", "")) for name, _, size, *_ in rows}
    assert list(bits)[-3:] == ["LSTM, 2 layers", "GRU, 2 layers", "GPT-2, 1 layer"]
    # The text repeats: who counts five characters knows the sixth, and single ones say little.
    assert bits["6-gram, Kneser-Ney"] < 0.2 < 2 < bits["1-gram, Kneser-Ney"] < 5
    assert all(0 < value < 6 for value in bits.values())
    for name in ("LSTM, 2 layers", "GRU, 2 layers"):
        assert sizes[name] == pytest.approx(sizes["GPT-2, 1 layer"], rel=0.15)
    assert all(f"{name}: {value:.3f} bits a character\n    " in result.stdout for name, value in bits.items())
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("short")
    result = families(tmp_path / "text.txt", *SMALL)
    assert result.returncode == 1
    assert "text.txt has 5 characters; a tenth of it must be more than 16" in result.stderr
    assert "--minutes is more than 0" in families(tmp_path / "text.txt", "--minutes", "0").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "nowhere.txt can't be read as UTF-8 text"),
        (["binary"], "binary can't be read as UTF-8 text"),
        (["text.txt", "--plot", "nowhere/curves.png"], "--plot is a name that ends in .png, in a folder that is there"),
        (["text.txt", "--plot", "curves.xyz"], "--plot is a name that ends in .png"),
        (["text.txt", "--seed", "-1"], "--seed is 0 or more"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be, or not to be: that is the question. " * 50)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    result = families(*arguments, *SMALL)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
