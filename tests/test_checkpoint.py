"""Checkpoints: whole or refused by name, and never code."""

import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from minilm.checkpoint import (
    CheckpointError,
    CheckpointStore,
    load_weights,
    read_checkpoint,
    save_weights,
    verify_checkpoint,
)


def _save(store, step, value=None, **options):
    weights = {"w": np.full((3, 2), step if value is None else value, np.float32)}
    return store.save(step, {"model": weights, "optimizer": {"m": weights["w"] * 2}}, {"step": step}, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_weights_come_back_as_they_were(tmp_path, dtype, shape):
    values = np.random.default_rng(0).standard_normal(shape) * 3
    arrays = {"a": np.asarray(values).astype(dtype), "turned": np.asarray(values).astype(dtype).T}
    save_weights(tmp_path / "w.safetensors", arrays)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert set(loaded) == {"a", "turned"}
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_weights_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(TypeError, match="'x' is object"):
        save_weights(tmp_path / "w.safetensors", {"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10")
    with pytest.raises(ValueError, match=r"torn\.safetensors"):
        load_weights(tmp_path / "torn.safetensors")


def test_a_checkpoint_holds_what_was_saved(tmp_path):
    store = CheckpointStore(tmp_path)
    path = store.save(7, {"model": {"w": np.arange(3)}}, {"data": {"position": 2**70}}, files={"config.json": "{}"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.step == 7
    assert checkpoint.state == {"data": {"position": 2**70}}
    assert checkpoint.tensors["model"]["w"].tolist() == [0, 1, 2]
    # Nothing in it can run code.
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


def test_the_last_and_what_they_refer_to_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for step in range(1, 7):
        _save(store, step, refers_to=[2 if step < 6 else 6])
    assert store.steps() == [2, 5, 6]  # 5 still refers to 2
    _save(store, 7, refers_to=[6])
    assert store.steps() == [6, 7]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_refused_by_name_and_the_one_before_it_used(tmp_path, name, damage):
    store = CheckpointStore(tmp_path)
    for step in (10, 20):
        _save(store, step)
    damage(store.path(20) / name)
    checkpoint, refused = store.newest()
    assert checkpoint.step == 10
    assert checkpoint.tensors["model"]["w"][0, 0] == 10
    assert len(refused) == 1
    assert "step-20" in str(refused[0])
    assert name in str(refused[0])


def test_a_renamed_or_foreign_folder_is_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    shutil.copytree(_save(store, 10), store.path(99))
    with pytest.raises(CheckpointError, match=r"step-99.*step 10"):
        verify_checkpoint(store.path(99))
    store.path(100).mkdir()
    with pytest.raises(CheckpointError, match="no manifest"):
        verify_checkpoint(store.path(100))
    with pytest.raises(CheckpointError, match="no such folder"):
        verify_checkpoint(store.path(101))
    assert store.newest()[0].step == 10
    manifest = json.loads((store.path(10) / "manifest.json").read_text())
    (store.path(10) / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="format 2"):
        verify_checkpoint(store.path(10))


@pytest.mark.parametrize("call", ["rename", "mkdir", "fsync"])
def test_a_stop_while_saving_leaves_the_earlier_ones(tmp_path, monkeypatch, call):
    store = CheckpointStore(tmp_path, keep_last=1)
    _save(store, 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _save(store, 20)
    checkpoint, refused = store.newest()
    assert (checkpoint.step, refused) == (10, [])
    _save(store, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["step-20"]  # nothing half done is left


def test_a_stop_while_pruning_leaves_nothing_named_as_a_checkpoint(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep_last=1)
    _save(store, 10)
    real = shutil.rmtree

    def half(path, *args, **kwargs):
        if Path(path).name == ".step-10.removing" and Path(path).exists():
            (Path(path) / "state.json").unlink()
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            _save(store, 20)
    assert store.steps() == [20]
    assert store.newest()[0].step == 20
    _save(store, 30)
    assert [path.name for path in tmp_path.iterdir()] == ["step-30"]


def test_saving_a_step_again_replaces_it(tmp_path):
    store = CheckpointStore(tmp_path)
    _save(store, 10, value=1)
    _save(store, 10, value=2)
    assert store.newest()[0].tensors["model"]["w"][0, 0] == 2


def test_later_ones_are_set_aside(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (10, 20, 30):
        _save(store, step)
    assert [path.name for path in store.set_aside_after(10)] == ["step-20.set-aside", "step-30.set-aside"]
    assert store.steps() == [10]
    with pytest.raises(ValueError, match="keep_last is 0"):
        CheckpointStore(tmp_path, keep_last=0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_weights_may_be_read_by_whoever_may_read_other_files(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"w": np.ones(1)})
    (tmp_path / "other").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
