"""What all tests share: the `gpu` marker, hypothesis' profiles, a random stream, and torch where it is installed."""

from __future__ import annotations

import importlib.util
import os
import types
from collections.abc import Iterator

import fake_cupy
import hypothesis
import numpy as np
import pytest

from minilm import backend

PEERS = ("torch", "transformers", "accelerate", "openai")

# `HYPOTHESIS_PROFILE=long pytest` looks further. Deadlines are off: the first call of a kernel compiles it.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items) -> None:
    """Tests that need a GPU are collected everywhere, and say what is missing where they are skipped."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    problem = backend.cuda_problem() if marked else None
    if problem is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {problem}"))


def pytest_runtest_logreport(report) -> None:
    """Appends failures as they come to the file that MINILM_FAILURES names: a run that is killed has then told them."""
    place = os.environ.get("MINILM_FAILURES")
    if place and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(place, "a", encoding="utf-8") as file:
            file.write(f"FAILED {report.nodeid} ({report.when})\n{report.longreprtext}\n\n")


def pytest_terminal_summary(terminalreporter) -> None:
    """After the reasons for which tests were skipped: what to install so that they run."""
    if not terminalreporter.stats.get("skipped"):
        return
    extra = "pip install -e '.[dev]'"
    found = {name: importlib.util.find_spec(name) is not None for name in (*PEERS, "cupy", "numba_cuda", "gguf")}
    missing = [peer for peer in PEERS if not found[peer]]
    lines = [f"compare with other libraries: pip install {' '.join(missing)}"] if missing else []
    if not all(found[name] for name in ("cupy", "numba_cuda", "gguf")):
        lines.append(f"compile CUDA kernels, or need CuPy's or GGUF's Python packages, but no GPU: {extra}")
    for line in lines:
        terminalreporter.write_line(f"To run those of the skipped tests that {line}")


@pytest.fixture
def rng() -> np.random.Generator:
    """A random stream, the same for each test."""
    return np.random.default_rng(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu), "stand-in"])
def device(request) -> Iterator[str]:
    """Each device in turn: "cpu", "cuda" (skipped where there is none), and "cuda" with the stand-in for CuPy."""
    if request.param == "stand-in":
        with fake_cupy.installed():
            yield "cuda"
    else:
        yield request.param


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "stand-in"])
def gpu(request) -> Iterator[None]:
    """Each test on a GPU (skipped where there is none) and on the stand-in: `.to("cuda")` then means that."""
    if request.param == "cuda":
        yield
    else:
        with fake_cupy.installed():
            yield


@pytest.fixture
def cuda_standin() -> Iterator[types.ModuleType]:
    """CuPy's stand-in (`tests/support/fake_cupy`) in the place of CuPy: "cuda" is then a device that can be used."""
    with fake_cupy.installed() as cupy:
        yield cupy


@pytest.fixture(scope="session")
def torch():
    """PyTorch, the oracle; tests that need it are skipped where it is not installed."""
    return pytest.importorskip("torch", reason="parity is checked against torch, which is not installed")


@pytest.fixture(scope="module")
def transformers(torch):
    """The peer of the models, with one thread: torch's and our threads would spin for each other's cores."""
    module = pytest.importorskip("transformers", reason="transformers, the peer, is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    module.logging.enable_propagation()  # so that caplog sees its warnings
    yield module
    module.logging.disable_propagation()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model():
    """tiny_model(kind, seed=0, **changes): a small model with weights large enough that its likeliest tokens vary."""
    return _tiny


@pytest.fixture(scope="module")
def peer_of(transformers, tmp_path_factory):
    """peer_of(model): transformers' model with the same weights."""

    def make(model):
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder)
        return getattr(transformers, model.architecture).from_pretrained(folder, attn_implementation="eager").eval()

    return make


def _tiny(kind: str, seed: int = 0, **changes):
    from minilm import models

    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in (
        ("layers", 2), ("ffn_dim", 40), ("attention_heads", 3))}  # fmt: skip
    llama = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    seq2seq = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    classes, settings = {
        "gpt2": ((models.GPT2, models.GPT2Config), {"n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3}),
        "llama": ((models.Llama, models.LlamaConfig), llama),
        "mistral": ((models.Mistral, models.MistralConfig), {**llama, "sliding_window": 5}),
        "bart": ((models.BartForConditionalGeneration, models.BartConfig), {
            **seq2seq, **sides, "d_model": 24, "max_position_embeddings": 64, "forced_eos_token_id": None}),
        "t5": ((models.T5ForConditionalGeneration, models.T5Config), {
            **seq2seq, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}),
    }[kind]  # fmt: skip
    model = classes[0](classes[1](**{"vocab_size": 61, **settings, **changes}))
    stream = backend.Generator(seed)
    for name, parameter in model.named_parameters():
        if "ln_" not in name and "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    return model.eval()
