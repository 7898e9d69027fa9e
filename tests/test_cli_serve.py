"""`minilm serve` before it serves: what it can't serve, and what it is asked wrongly."""

import sys

import pytest

from minilm.backend import Generator
from minilm.cli.main import main
from minilm.models import RecurrentConfig, RecurrentLM, T5Config, T5ForConditionalGeneration
from minilm.tokenization import Tokenizer


def test_without_the_extra_it_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "somewhere"]) == 1
    assert "minilm serve needs the package uvicorn" in (said := capsys.readouterr().err)
    assert "pip install 'minilm[serve]'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "port is 70000; expected 0 to 65535"),
        (["--rows", "0"], "rows is 0; expected 1 or more"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0; expected 1 or more"),
        (["--grace", "-1"], "queue and grace are 0 or more"),
        ([], "there is no run folder nothing-here"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, capsys):
    pytest.importorskip("uvicorn", reason="uvicorn, of the extra serve, is not installed")
    assert main(["serve", "nothing-here", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "model",
    [
        lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=257, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), Generator(0)
        ),
        lambda: RecurrentLM(RecurrentConfig(vocab_size=257, hidden_size=8, num_layers=1), Generator(0)),
    ],
    ids=["t5", "recurrent"],
)
def test_other_models_are_refused(model, tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="uvicorn, of the extra serve, is not installed")
    model().save_pretrained(tmp_path)
    Tokenizer.byte(["<|end|>"]).save(tmp_path)
    assert main(["serve", str(tmp_path), "--port", "0"]) == 1
    assert "served are decoder-only transformers, which write, and encoders" in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="uvicorn, of the extra serve, is not installed")
    import socket

    from minilm.models import GPT2, GPT2Config

    GPT2(GPT2Config(vocab_size=257, n_positions=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    Tokenizer.byte(["<|end|>"]).save(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err
