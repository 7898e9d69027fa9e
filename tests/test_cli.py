"""The command, as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minilm.checkpoint import load_weights
from minilm.cli.main import main
from minilm.models import GPT2
from minilm.tokenization import Tokenizer

TEXT = "".join(f"def function_{i}(x):\n    return x + {i * 7919 % 101}  # näive\n\n\n" for i in range(300))
COMMAND = [sys.executable, "-m", "minilm.cli"]
# Models as small as these gain nothing from threads, and lose where other programs want the cores too.
ENVIRONMENT = {**os.environ, "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus):
    """A finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = minilm(
        "train", "--preset", "tiny", "--data", corpus, "--output-dir", folder, "--train.sample-prompt", "def "
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def minilm(*arguments):
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=ENVIRONMENT)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in lines]


def test_training_leaves_a_folder_that_others_understand(trained):
    folder, _ = trained
    names = {path.name for path in folder.iterdir() if path.name[0] != "."}
    assert names == {
        *("config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("training.json", "metrics.jsonl", "loss.png", "checkpoints", "data"),
    }
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-20", "step-40", "step-60"]
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".npy", ".npz")]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"
    assert [row["step"] for row in rows(folder)] == list(range(1, 61))
    assert rows(folder)[-1]["val_loss"] < rows(folder)[19]["val_loss"] < 5.6
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    model, tokenizer = GPT2.from_pretrained(folder), Tokenizer.from_file(folder)
    assert model(tokenizer.encode("def ")[None]).logits.shape == (1, 4, tokenizer.vocab_size)
    best = load_weights(folder / "checkpoints" / "step-60" / "model.safetensors")
    assert all(np.array_equal(array, best[name]) for name, array in model.state_dict().items())


def test_training_shows_what_it_does(trained):
    folder, output = trained
    for word in (
        "step 60/60",
        "loss ",
        "val ",
        "lr ",
        "norm ",
        "tok/s",
        "% of matrix rate",
        "ETA ",
        "sample after step 20",
    ):
        assert word in output
    assert re.search(r"step 40/60 .* ETA \d:\d\d:\d\d", output)
    after = output[output.rindex("next:") :].splitlines()
    assert after == [
        f"next:  minilm generate {folder} --prompt 'def ' --max-new-tokens 200",
        f"       minilm check {folder}",
    ]
    assert "\x1b" not in output  # plain lines, as it is no terminal


def test_a_terminal_gets_one_live_line(tmp_path, corpus):
    pty = pytest.importorskip("pty")
    reader, writer = pty.openpty()
    arguments = ["train", "--preset", "tiny", "--data", str(corpus), "--output-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--train.steps", "30"],
        stdout=writer,
        stderr=writer,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "150"},
    )
    os.close(writer)
    output = b""
    while True:
        try:
            piece = os.read(reader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(reader)
    assert process.wait() == 0
    assert b"\x1b[2K" in output  # the line is written over
    assert b"step 30/30" in output
    assert b"minilm check" in output


def test_generating(trained):
    folder, _ = trained
    arguments = ("generate", folder, "--prompt", "def né", "--max-new-tokens", "20", "--seed", "3")
    first = minilm(*arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("def né")
    assert len(first.stdout) > len("def né\n")
    assert minilm(*arguments).stdout == first.stdout
    assert "�" not in minilm("generate", folder, "--greedy").stdout


def test_generating_from_a_checkpoint_with_options(trained, capfd):
    folder, _ = trained
    checkpoint = str(folder / "checkpoints" / "step-40")
    options = ["--top-k", "5", "--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty", "1.2", "--stop", "e", "q"]
    assert main(["generate", checkpoint, "--prompt", "def", "--max-new-tokens", "5", *options]) == 0
    assert capfd.readouterr().out.startswith("def")
    assert main(["generate", checkpoint, "--prompt", "x", "--max-new-tokens", "0"]) == 0
    assert capfd.readouterr().out == "x\n"
    assert main(["generate", checkpoint, "--temperature", "0"]) == 1
    assert "temperature must be above 0" in capfd.readouterr().err


def test_checking(trained, capfd):
    folder, _ = trained
    assert main(["check", str(folder), "--length", "16"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert all(line.startswith("ok") for line in lines[1:-1])
    assert len(lines) > 6


def test_a_failing_check_is_exit_status_1(trained, capfd, monkeypatch):
    forward = GPT2.forward

    def sees_the_future(self, input_ids, **rest):
        out = forward(self, input_ids, **rest)
        out.logits = out.logits + out.logits.mean(axis=1, keepdims=True)
        return out

    monkeypatch.setattr(GPT2, "forward", sees_the_future)
    assert main(["check", str(trained[0])]) == 1
    assert "FAIL no position sees the future" in capfd.readouterr().out


def test_a_file_of_settings_and_the_command_line_over_it(tmp_path, corpus, capfd):
    settings = tmp_path / "run.toml"
    settings.write_text(
        f'preset = "tiny"\ndata = "{corpus}"\n[train]\nsteps = 11\neval_interval = 10\n[optim]\nlr = 1e-3\n'
    )
    folder = tmp_path / "run"
    arguments = ["--config", str(settings), "--output-dir", str(folder), "--train.steps", "12", "--tokenizer", "char"]
    assert main(["train", *arguments]) == 0
    saved = json.loads((folder / "training.json").read_text())
    assert (saved["preset"], saved["train"]["steps"], saved["optim"]["lr"]) == ("tiny", 12, 1e-3)
    assert saved["tokenizer"] == "char"
    assert len(rows(folder)) == 12
    assert main(["train", *arguments]) == 1
    assert "--resume auto" in capfd.readouterr().err
    assert main(["train", "--resume", str(folder), "--train.steps", "14"]) == 0
    assert len(rows(folder)) == 14
    capfd.readouterr()
    assert main(["train", "--resume", str(folder)]) == 0
    assert "resumed    after step 14, its last; further: --train.steps 28" in capfd.readouterr().out
    assert main(["train", "--resume", str(folder), "--seed", "3"]) == 1
    assert "seed is 3" in capfd.readouterr().err
    assert main(["train", "--resume", str(folder), "--preset", "default"]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, corpus, trained, number):
    folder = tmp_path / "run"
    arguments = [
        "--preset",
        "tiny",
        "--data",
        str(corpus),
        "--output-dir",
        str(folder),
        "--train.sample-prompt",
        "def ",
    ]
    process = subprocess.Popen([*COMMAND, "train", *arguments], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for_rows(process, folder, 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 128 + number
    assert f"minilm train --resume auto --output-dir {folder}" in output
    assert (folder / "model.safetensors").is_file()
    step = rows(folder)[-1]["step"]
    assert (folder / "checkpoints" / f"step-{step}").is_dir()
    assert minilm("train", "--resume", "auto", "--output-dir", folder).returncode == 0
    assert rows(folder) == rows(trained[0])


def wait_for_rows(process, folder, count):
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        time.sleep(0.005)


def test_killed_at_random_moments_it_gives_the_losses_of_a_run_never_stopped(tmp_path, corpus):
    """MINILM_KILLS=50 makes it as many; then a run that ended too early is begun anew."""
    kills, random = int(os.environ.get("MINILM_KILLS", "4")), np.random.default_rng(int(time.time()))
    settings = ["--preset", "tiny", "--data", str(corpus), "--model.dropout", "0.1", "--train.ema-decay", "0.9"]
    settings += ["--train.steps", "150", "--train.checkpoint-interval", "1", "--train.sample-interval", "0"]
    settings += ["--train.eval-batches", "4", "--optim.schedule", "plateau", "--optim.warmup-steps", "5"]
    assert minilm("train", *settings, "--output-dir", tmp_path / "whole").returncode == 0
    moments, attempt, folder = [], 0, tmp_path / "killed-0"
    while True:
        command = [*COMMAND, "train", *settings, "--output-dir", str(folder), "--resume", "auto"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
        )
        if len(moments) < kills:
            if random.random() < 0.3:
                time.sleep(random.uniform(0.3, 2.5))  # while it starts, reads the corpus, or goes on
            else:
                metrics = folder / "metrics.jsonl"
                seen = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
                wait_for_rows(process, folder, seen + 3)
                time.sleep(random.uniform(0, 0.3))  # in a step, an evaluation, a checkpoint, a row, while pruning
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
        if process.returncode == -signal.SIGKILL:
            moments.append(len(rows_whole(folder)))
            continue
        assert process.returncode == 0, output
        assert rows(folder) == rows(tmp_path / "whole"), moments
        for name in (
            "model.safetensors",
            "checkpoints/step-150/optimizer.safetensors",
            "checkpoints/step-150/ema.safetensors",
        ):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (name, moments)
        if len(moments) >= kills:
            break
        attempt += 1
        folder = tmp_path / f"killed-{attempt}"
    leftovers = [path for path in folder.rglob(".*") if path.name != ".lock"]
    assert leftovers == []


def rows_whole(folder):
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().splitlines() if metrics.exists() else []
