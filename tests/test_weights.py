"""Weights files: what goes in comes out, torch's users can read it, and a damaged file is named."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm import backend, nn
from minilm.checkpoint import load_weights, save_weights

DTYPES = ["float16", "float32", "float64", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "uint16", "bool"]


def equal(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_come_back(dtype, tmp_path, rng):
    values = (rng.standard_normal((3, 4)) * 10).astype(backend.resolve_dtype(dtype))
    save_weights(tmp_path / "w.safetensors", {"a.b": values})
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.keys() == {"a.b"}
    assert equal(loaded["a.b"], values)


def test_shapes_and_layouts_come_back(tmp_path, rng):
    base = rng.standard_normal((4, 6)).astype(np.float32)
    arrays = {
        "whole": base,
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "backwards": base[::-1],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "fortran": np.asfortranarray(base),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(2.5, np.float32),
        "big endian": base.astype(">f4"),
        "special": np.array([np.nan, np.inf, -0.0, 1e-42], np.float32),
    }
    save_weights(tmp_path / "w.safetensors", arrays)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert equal(loaded[name], np.ascontiguousarray(array, dtype="<f4").reshape(array.shape)), name


def test_torch_reads_what_we_write_and_we_read_what_it_writes(tmp_path, rng, torch):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    values = rng.standard_normal((3, 4)).astype(np.float32)
    save_weights(tmp_path / "a", {"w": values, "half": values.astype(backend.bfloat16())}, {"step": "7"})
    theirs = load_file(tmp_path / "a")
    np.testing.assert_array_equal(theirs["w"].numpy(), values)
    assert torch.equal(theirs["half"], torch.from_numpy(values).to(torch.bfloat16))
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}
    save_file(theirs, tmp_path / "b")
    for name, array in load_weights(tmp_path / "a").items():
        assert equal(load_weights(tmp_path / "b")[name], array)


def test_a_module_comes_back_in_its_own_dtype(tmp_path):
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    save_weights(tmp_path / "w", source.to("bfloat16").state_dict())
    target.load_state_dict(load_weights(tmp_path / "w"))
    assert target.weight.dtype == np.float32
    np.testing.assert_array_equal(target.weight.data, source.weight.data.astype(np.float32))
    save_weights(tmp_path / "w", {"x": minilm.tensor([1.0, 2.0])})
    np.testing.assert_array_equal(load_weights(tmp_path / "w")["x"], [1, 2])


@pytest.mark.parametrize("dtype", ["complex64", "U1", "longdouble", "datetime64[s]", "O"])
def test_what_the_format_does_not_hold_is_refused_and_the_old_file_stays(dtype, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.ones(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"'b' is .* which a safetensors file does not hold"):
        save_weights(path, {"a": np.zeros(2, np.float32), "b": np.zeros(2, dtype)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    import safetensors.numpy

    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.ones(2, np.float32)})
    before = path.read_bytes()

    def full(arrays, place, metadata):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, {"a": np.zeros(2, np.float32)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", [b"", b"\0" * 8, b"\xff" * 64, b"PK\x03\x04 a zip archive", "cut", "longer"])
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.ones(20, np.float32)})
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-3], "longer": whole + b"more"}.get(damage, damage))
    with pytest.raises(ValueError, match=r"w\.safetensors is no intact safetensors file"):
        load_weights(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_weights(tmp_path)
    save_weights(tmp_path / "model.safetensors", {"w": np.arange(3)})
    assert load_weights(tmp_path)["w"].tolist() == [0, 1, 2]


def test_a_model_in_the_place_of_its_arrays(tmp_path):
    with pytest.raises(TypeError, match=r"a dict of arrays by name, not a Linear: model\.state_dict\(\)"):
        save_weights(tmp_path / "a.safetensors", nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())
