"""Files are replaced whole, or not at all."""

import os

import pytest

from minilm.files import atomic_write, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "a.txt", "first")

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        atomic_write(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_replaces_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as aside:
        aside.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(RuntimeError), replacing(path) as aside:  # noqa: PT012
        aside.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
