"""What is said to who asks for what can't be: one line, an exit status, no traceback, and nothing lost."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

from minilm import backend
from minilm.cli.main import main

TEXT = "".join(f"def function_{i}(x):\n    return x + {i * 7919 % 101}\n\n\n" for i in range(300))
TINY = ["train", "--preset", "tiny", "--train.sample-interval", "0", "--optim.warmup-steps", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, a finished run and files that are of no use."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "corpus").write_text(TEXT)
    for name, content in {"binary": b"\xff\xfe\x00", "binary.toml": b"\xff\xfe\x00", "file": b"a file"}.items():
        (folder / name).write_bytes(content)
    for name in ("folder", "folder.npy", "folder.png"):
        (folder / name).mkdir()
    run = [*TINY, "--data", str(folder / "corpus"), "--output-dir", str(folder / "run"), "--train.steps", "3"]
    assert minilm(run).returncode == 0
    return folder


def minilm(arguments, largest: int = resource.RLIM_INFINITY):
    """The command, in a process that may write files of so many bytes: too few are what a full disk is."""
    return subprocess.run(
        [sys.executable, "-m", "minilm.cli", *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        env={**os.environ, "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --config binary.toml", "binary.toml can't be read as TOML: 'utf-8' codec can't decode"),
        ("train --preset tiny --data corpus --output-dir file/run", "file/run: is below a file; name another place"),
        ("train --resume run --model.n-layer 3", "model.n_layer is 3, and the run in run was started with 2"),
        ("check run --length 0", "length is 0"),
        ("check run --seed -1", "seed is -1; expected 0 or more"),
        ("generate run --temperature 0", "--greedy"),
        ("generate run --greedy --top-k 5", "--top-k has no effect: --greedy takes the likeliest token"),
        ("generate run --num-beams 2 --top-p 0.5", "--top-p has no effect: --num-beams above 1 draws nothing"),
        ("generate run --length-penalty 2", "--length-penalty has no effect: it is for --num-beams above 1"),
        ("generate run --num-assistant-tokens 2", "it is for --assistant-model, which is not given"),
        ("generate run --num-beams 2 --prompt-lookup-num-tokens 2", "leave beams out"),
        ("convert run file/out", "file/out: is below a file; name another place"),
        ("embed run nowhere", "nowhere: there is no such file or folder"),
        ("embed run folder", "folder: is a folder; name a file"),
        ("embed run file --output nowhere/x.npy", "there is no folder nowhere"),
        ("embed run file --output folder.npy", "folder.npy, which is a folder"),
        ("embed nowhere file", "there is no folder nowhere"),
        ("info nowhere", "there is no run folder nowhere"),
    ],
)
def test_a_mistake_is_one_line(words, message, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert main(words.split()) == 1
    error = capfd.readouterr().err
    assert error.startswith("minilm: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attention --causal maybe", "--causal maybe: expected true or false"),
        ("attention --dropout-p much", "--dropout-p much: expected a number"),
        ("attention --bias foo", "--bias foo: expected one of none, scores, heads"),
        ("gelu --seed -1", "--seed -1; expected 0 or more"),
        ("gelu --csv folder", "can't write folder: it is a folder"),
        ("gelu --plot folder.png", "can't write folder.png: it is a folder"),
        ("gelu --plot rates.pgf", "expected a name that ends in one of .png"),
        ("--list nope", "there is no operation 'nope'"),
    ],
)
def test_the_lab_measures_nothing_where_it_could_not_go_on(words, message, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    assert main(["bench", *words.split()]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_the_list_is_of_the_operations_that_are_named(capfd):
    assert main(["bench", "--list", "gelu", "rotary_backward"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == ["gelu", "rotary"]


@pytest.mark.parametrize(
    ("verb", "usage"),
    [
        *((verb, "MODEL") for verb in ("generate", "chat", "serve", "check", "info")),
        ("embed", "MODEL FILE"),
        ("convert", "MODEL FOLDER"),
    ],
)
def test_the_help_names_what_is_given_by_its_place(verb, usage, capfd):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    first = capfd.readouterr().out.splitlines()[0]
    assert usage in first.replace("[", "").replace("]", "")


def test_a_run_that_fills_the_disk_goes_on_from_its_last_checkpoint(place, tmp_path):
    """Its weights fit, and its optimiser's state does not; before that, its tokens do not."""
    folder = tmp_path / "run"
    arguments = [
        *TINY,
        "--data",
        str(place / "corpus"),
        "--output-dir",
        str(folder),
        "--train.checkpoint-interval",
        "5",
    ]
    tokens = minilm(arguments, 5_000)
    assert tokens.returncode == 1
    assert "a file can't become so large" in tokens.stderr
    assert not folder.exists()

    assert minilm([*arguments, "--train.steps", "5"]).returncode == 0
    resumed = [*TINY[:1], "--resume", "auto", "--output-dir", str(folder), "--train.steps", "12"]
    result = minilm(resumed, 200_000)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "optimizer.safetensors: a file can't become so large" in result.stderr
    assert f"minilm train --resume auto --output-dir {folder}" in result.stderr
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-5"]

    assert minilm(resumed).returncode == 0
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 13))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-10", "step-12", "step-5"]


def test_serving_where_it_can_not(place, monkeypatch, capfd):
    pytest.importorskip("uvicorn", reason="serving needs uvicorn")
    monkeypatch.chdir(place)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "run", "--port", str(port)]) == 1
    error = capfd.readouterr().err
    assert f"can't listen at 127.0.0.1, port {port}: " in error
    assert "--port (0 takes a free one)" in error
    assert error.count("\n") == 1
    assert main(["serve", "run", "--max-length", "1000"]) == 1
    assert "max_length is 1000; this model can look at 64 tokens" in capfd.readouterr().err


def test_ctrl_c_before_the_first_step_says_how_to_go_on(place, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "minilm.cli", *TINY, "--data", str(place / "corpus"), "--output-dir", str(folder)]
    command += ["--train.steps", "100000"]  # it is to be there still where the signal comes late
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell runs in the background ignores SIGINT, and so would what we start.
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=listening, **pipes) as process:
        while process.poll() is None and not (folder / "training.json").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error == ""
    assert f"minilm train --resume auto --output-dir {folder}" in output
    assert minilm(["train", "--resume", "auto", "--output-dir", str(folder), "--train.steps", "20"]).returncode == 0
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("arguments", [["train", "--preset", "tiny"], ["generate", "run"], ["chat", "model"]])
def test_cuda_where_there_is_none_is_a_clear_error(arguments, capfd, monkeypatch, tmp_path):
    """With CuPy and without it: one line that says what is missing, before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    if (problem := backend.cuda_problem()) is not None:
        assert main([*arguments, "--device", "cuda"]) != 0
        assert problem in " ".join(capfd.readouterr().err.split())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main([*arguments, "--device", "cuda"]) != 0
    error = " ".join(capfd.readouterr().err.split())
    assert "device 'cuda' can't be used here: the package CuPy is not installed" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no verb 'trian'; did you mean 'train'"),
        (["train", "--preset", "tinny"], "no preset 'tinny'; did you mean 'tiny'"),
        (["train", "--preset", "shakespeare-char-cpu"], "--data input.txt"),
        (
            ["train", "--preset", "tiny", "--data", "nowhere.txt"],
            "nowhere.txt: a corpus is a UTF-8 text file or a folder",
        ),
        (["train", "--preset", "tiny", "--data", "{empty}"], "is empty"),
        (["train", "--preset", "tiny", "--data", "{short}"], "context=32 needs 33 tokens"),
        (["train", "--preset", "tiny", "--data", "{short}", "--train.context", "4"], "2 tokens, and there is 1"),
        (["train", "--preset", "tiny", "--data", "{binary}"], "is not UTF-8"),
        (["train", "--preset", "tiny", "--train.context", "65"], "the model has 64 positions"),
        (["train", "--preset", "tiny", "--tokenizer", "bpee"], "'bpee' is none"),
        (["train", "--preset", "tiny", "--tokenizer", "char", "--vocab-size", "300"], "for the tokenizer 'bpe'"),
        (["train", "--preset", "tiny", "--data", "{short}", "--resume", "nowhere"], "there is no such folder"),
        (["train", "--config", "nowhere.toml"], "no configuration file at nowhere.toml"),
        (["train", "--config", "{config}"], "no setting 'train.stepz'; did you mean 'train.steps'"),
        (["generate", "nowhere"], "there is no run folder nowhere"),
        (["check", "."], "is no run folder"),
    ],
)
def test_errors_come_before_anything_starts(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name, content in {"empty": b"", "short": b"too short", "binary": b"\xff" * 1000}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.toml").write_text("[train]\nstepz = 3\n")
    before = sorted(tmp_path.rglob("*"))
    places = {name: tmp_path / name for name in ("empty", "short", "binary")}
    assert main([part.format(**places, config=tmp_path / "config.toml") for part in arguments]) in (1, 2)
    captured = capfd.readouterr()
    assert message in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "runs"] == before


@pytest.mark.parametrize(
    ("option", "near"),
    [("--train.stepz", "--train.steps"), ("--optim.l", "--optim.lr"), ("--modle.n-layer", "n-layer")],
)
def test_unknown_options_get_the_nearest_name(option, near, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["train", option, "3"])
    assert stop.value.code == 2
    assert near in capfd.readouterr().err


def test_wrong_types_are_named(capfd):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--train.steps", "many"])
    assert stop.value.code == 2
    assert "--train.steps" in capfd.readouterr().err


@pytest.mark.parametrize(("package", "verb"), [("tyro", "info"), ("rich", "train")])
def test_a_missing_package_is_named(package, verb, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.console", None)
    assert main([verb]) == 1
    assert f"pip install {package}" in capfd.readouterr().err
