"""A small model that writes bytes, and a server that has it."""

from __future__ import annotations

import json

import pytest

from minilm.backend import Generator
from minilm.models import Llama, LlamaConfig
from minilm.tokenization import Tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama that writes bytes, with weights large enough that its likeliest tokens vary."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=None, eos_token_id=[256, 84],
    )  # fmt: skip
    model, stream = Llama(config), Generator(1)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    model.save_pretrained(path)
    Tokenizer.byte(["<|end|>"]).save(path)
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return Llama.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def server(model, tokenizer):
    """A client of the server of that model, and its engine."""
    from serving_client import text_server  # its tests are skipped where it can't be imported

    with text_server(model, tokenizer) as found:
        yield found


@pytest.fixture
def client(server):
    return server[0]
