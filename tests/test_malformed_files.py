"""Files of models that lie or are damaged: a ValueError or FileNotFoundError that names the file, at once and small."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm import models
from minilm.backend import Generator
from minilm.checkpoint import CheckpointError, CheckpointStore, load_weights, read_checkpoint, save_weights
from minilm.checkpoint.gguf import GGUFTensor
from minilm.checkpoint.weights import map_weights
from minilm.models.gguf import build_gguf
from minilm.training import RunFolder, RunFolderError

MOST_BYTES = 32 * 2**20  # of Python's and NumPy's; what lies asks for terabytes


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES


def refuses(path: Path, load, *more: str) -> str:
    """That `load()` is a documented error that names `path`; what it says."""
    with little_memory(), pytest.raises((ValueError, FileNotFoundError)) as raised:
        load()
    said = str(raised.value)
    assert not isinstance(raised.value, UnicodeError)
    assert str(path) in said
    assert all(part in said for part in more), said
    return said


# -- safetensors ------------------------------------------------------------------------------------------------------


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}


def safetensors(header, body: int = 16, length: int | None = None) -> bytes:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(body)


LIES = {
    "a header of exabytes": safetensors({"a": entry()}, length=2**62),
    "a header longer than the file": safetensors({"a": entry()}, length=10**6),
    "a header cut off": safetensors({"a": entry()})[:30],
    "data cut off": safetensors({"a": entry()}, 15),
    "more than is described": safetensors({"a": entry()}, 20),
    "places that overlap": safetensors({"a": entry(), "b": entry(data_offsets=[8, 24])}, 24),
    "one place for two": safetensors({"a": entry(), "b": entry()}),
    "a gap": safetensors({"a": entry(), "b": entry(data_offsets=[32, 48])}, 48),
    "a place after the end": safetensors({"a": entry(shape=[2**38], data_offsets=[0, 2**40])}),
    "a place before the beginning": safetensors({"a": entry(data_offsets=[-16, 0])}),
    "an end before its beginning": safetensors({"a": entry(data_offsets=[16, 0])}),
    "a shape of too many numbers": safetensors({"a": entry(shape=[2**40, 2**40])}),
    "a shape that overflows": safetensors({"a": entry(shape=[2**32, 2**32])}),
    "an empty shape that overflows": safetensors({"a": entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0])}, 0),
    "too many axes": safetensors({"a": entry(shape=[1] * 100 + [4])}),
    "a negative shape": safetensors({"a": entry(shape=[-4])}),
    "a shape with a fraction": safetensors({"a": entry(shape=[4.0])}),
    "a shape that is text": safetensors({"a": entry(shape="4")}),
    "one name twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}',
        32,
    ),
    "an unknown dtype": safetensors({"a": entry(dtype="F31")}),
    "a dtype of half bytes": safetensors({"a": entry(dtype="F4", shape=[32])}),
    "complex numbers": safetensors({"a": entry(dtype="C64", shape=[2])}),
    "no dtype": safetensors({"a": entry(dtype=None)}),
    "a list": safetensors([1]),
    "nested without end": safetensors(b"[" * 100_000),
    "no UTF-8": safetensors(b'{"\xff":1}'),
    "metadata that is a number": safetensors({"__metadata__": 5, "a": entry()}),
    "half a character": safetensors(b'{"\\ud800":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
}


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_that_lie(lie, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(LIES[lie])
    refuses(path, lambda: load_weights(path))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_safetensors_with_damage_anywhere(tmp_path, data):
    """Found, or harmless: then the arrays are no larger than the file."""
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.ones((3, 4), np.float32), "b.c": np.zeros(5, np.int64)})
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged)
    arrays, said = {}, str(path)
    try:
        with little_memory():
            arrays = load_weights(path)
    except ValueError as error:
        said = str(error)
    assert str(path) in said
    assert sum(array.nbytes for array in arrays.values()) <= len(damaged)


# -- several files and their index ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ('{"weight_map": {"a": "no.safetensors"}}', "no.safetensors, which is not there"),
        ('{"weight_map": {"c": "one.safetensors"}}', "says that 'c' is in one.safetensors, and it is not"),
        ('{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}', "says twice where 'a' is"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "expected one beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "expected one beside it"),
        ('{"weight_map": {"a": "deeper/x.safetensors"}}', "expected one beside it"),
        ('{"weight_map": {"a": "."}}', "expected one beside it"),
        ('{"weight_map": {"a": ".."}}', "expected one beside it"),
        ('{"weight_map": {"a": ""}}', "expected one beside it"),
        ('{"weight_map": {"a": "one.safetensors\\u0000"}}', "expected one beside it"),
        ('{"weight_map": {"a": "\\ud800"}}', "expected one beside it"),
        ('{"weight_map": {"a": 5}}', "expected one beside it"),
        ('{"weight_map": {"a": null}}', "expected one beside it"),
        ('{"weight_map": {"a": ["one.safetensors"]}}', "is no index"),
        ('{"weight_map": {"a": "one.safetensors", "b": 3}}', "is no index"),
        ('{"weight_map": {"a": "' + "x" * 5000 + '"}}', "which is not there"),
        ('{"weight_map": []}', "is no index"),
        ('{"metadata": {}}', "is no index"),
        ("[" * 100_000, "is no index"),
        ("", "is no index"),
        ("\xff", "is no index"),
    ],
)
def test_an_index_that_lies(index, says, tmp_path):
    folder = tmp_path / "model"
    (folder / "deeper").mkdir(parents=True)
    for place in ("model/one", "model/two", "model/deeper/x", "secret"):
        save_weights(tmp_path / f"{place}.safetensors", {"a": np.ones(4, np.float32)})
    (folder / "model.safetensors.index.json").write_text(index, encoding="latin-1")
    refuses(folder / "model.safetensors.index.json", lambda: map_weights(folder), says)


def test_a_weight_in_two_files_is_where_the_index_says(tmp_path):
    for number, name in enumerate(("one", "two")):
        save_weights(tmp_path / f"{name}.safetensors", {"a": np.full(4, number, np.float32)})
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "two.safetensors"}}')
    assert map_weights(tmp_path)["a"].tolist() == [1] * 4


# -- config.json ------------------------------------------------------------------------------------------------------

SIZES = {
    **dict.fromkeys(("vocab_size", "n_positions", "max_position_embeddings"), 16),
    **dict.fromkeys(("n_embd", "hidden_size", "d_model", "intermediate_size", "d_ff"), 8),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 8),
    **dict.fromkeys(("n_layer", "num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("n_head", "num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 2),
    "num_heads": 2,
    "num_key_value_heads": 2,
    "d_kv": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
FAMILIES = {
    "GPT2": models.GPT2,
    "Llama": models.Llama,
    "Qwen2": models.Qwen2,
    "BERT": models.BertForSequenceClassification,
    "BART": models.BartForConditionalGeneration,
    "Marian": models.MarianMTModel,
    "T5": models.T5ForConditionalGeneration,
    "LSTM": models.RecurrentLM,
}
HUGE = [10**9, 10**12, 2**63, 10**40]
WRONG = ["x", [[[]]], {}, float("nan"), float("inf"), 1.5, -1, None, *HUGE]


@pytest.fixture(params=FAMILIES)
def saved(request, tmp_path):
    kind = FAMILIES[request.param]
    names = {field.name for field in dataclasses.fields(kind.config_class)}
    config = kind.config_class(**{name: size for name, size in SIZES.items() if name in names})
    kind(config, Generator(0)).save_pretrained(tmp_path)
    models.load(tmp_path)
    return tmp_path


def test_sizes_that_lie_allocate_nothing(saved):
    path = saved / "config.json"
    intact = json.loads(path.read_text())
    for name in SIZES.keys() & intact.keys() - {"pad_token_id", "decoder_start_token_id"}:
        # Llama computes positions, of any number: a long context alone is no lie.
        values = ["x", None, float("nan"), []] if name == "max_position_embeddings" else ["x", 1.5, [], *HUGE]
        for value in values:
            path.write_text(json.dumps({**intact, name: value}))
            refuses(saved, lambda: models.load(saved))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_any_key_is_named_or_harmless(saved, data):
    path = saved / "config.json"
    intact = path.read_text()
    key = data.draw(st.sampled_from(sorted(json.loads(intact))))
    path.write_text(json.dumps({**json.loads(intact), key: data.draw(st.sampled_from(WRONG))}))
    said = str(saved)
    try:
        with little_memory():
            models.load(saved)
    except KeyError as error:  # a switch that changes which weights there are; documented, with all their names
        said = str(error) if "the weights do not fit" in str(error) else ""
    except ValueError as error:
        said = str(error)
    finally:
        path.write_text(intact)
    assert str(saved) in said


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 9999 + b"}"]
)
def test_a_config_that_is_no_json_object(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    refuses(tmp_path / "config.json", lambda: models.load(tmp_path))


# -- GGUF metadata that describes a model -----------------------------------------------------------------------------

METADATA = {
    "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 16, "llama.embedding_length": 8,
    "llama.feed_forward_length": 8, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4, "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 2.0, "llama.rope.scaling.original_context_length": 8,
}  # fmt: skip


def tensors() -> dict[str, GGUFTensor]:
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {"token_embd.weight": (16, 8), "output_norm.weight": (8,)}
    shapes |= {f"blk.0.{name}.weight": (8, 8) for name in matrices}
    shapes |= {"blk.0.attn_norm.weight": (8,), "blk.0.ffn_norm.weight": (8,)}
    return {name: GGUFTensor("F32", shape, np.ones(shape, np.float32)) for name, shape in shapes.items()}


@pytest.mark.parametrize("key", METADATA)
def test_gguf_metadata_that_lies(key):
    path = Path("some.gguf")
    build_gguf(METADATA, tensors(), "keep", path)
    endless = [] if key == "llama.context_length" or "rope" in key or "eps" in key else HUGE
    for value in ("x", [1], np.ones(3), float("nan"), *endless):
        refuses(path, lambda value=value: build_gguf({**METADATA, key: value}, tensors(), "keep", path))


def test_gguf_tensors_of_odd_names(tmp_path):
    with pytest.raises(KeyError, match=r"some\.gguf does not fit .*'nodots'"):
        build_gguf(METADATA, {**tensors(), "nodots": tensors()["output_norm.weight"]}, "keep", "some.gguf")


# -- checkpoints and runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (1, 2):
        store.save(step, {"model": {"w": np.ones(4, np.float32)}}, {"loss": 1.0})
    return store


def still_uses_the_one_before(store) -> None:
    checkpoint, refused = store.newest()
    assert checkpoint.step == 1
    assert len(refused) == 1
    store.prune()


PRINT = {"size": 1, "sha256": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}}, {"files": []}, {"files": 5}, {"files": {"state.json": None}}, {"step": "2"}, {"step": True},
        {"step": -1}, {"step": 2.0}, {"step": 10**400}, {"refers_to": ["x"]}, {"refers_to": {}}, {"format": None},
        {"files": {"state.json": {"size": "a", "sha256": None}}}, {"files": {"state.json": PRINT, "": PRINT}},
        {"files": {"state.json": PRINT, "../../evil.safetensors": PRINT}},
        {"files": {"state.json": PRINT, "/etc/passwd": PRINT}}, {"files": {"state.json": PRINT, "a\0b": PRINT}},
        {"files": {"state.json": PRINT, "x" * 5000: PRINT}},
    ],
    ids=lambda change: str(change)[:40].replace("\0", ""),
)  # fmt: skip
def test_a_manifest_that_lies(change, store):
    path = store.path(2)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    refuses(path, lambda: read_checkpoint(path))
    still_uses_the_one_before(store)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, safetensors({"a": entry()}, 8)]
)
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_a_checkpoint_made_to_deceive(name, content, store):
    """Its manifest agrees with the damage."""
    path = store.path(2)
    (path / name).write_bytes(content)
    if name != "manifest.json":
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (path / "manifest.json").write_text(json.dumps(manifest))
    with little_memory(), pytest.raises(CheckpointError, match="step-2 is refused"):
        read_checkpoint(path)
    still_uses_the_one_before(store)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b"null", b"\xff", b"[" * 100_000, b'{"model": 5}', b'{"train": {"steps": "x"}}']
)
def test_a_run_with_a_damaged_configuration(content, tmp_path):
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"training\.json is damaged"):
        RunFolder(tmp_path).read_config()
