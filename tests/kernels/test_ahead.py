"""Compiling ahead: once for a version and a folder, in a process that gets through, and never in the way."""

from __future__ import annotations

import gc
import subprocess

import pytest

pytest.importorskip("numba")

from minilm_kernels import ahead, cache, compile_ahead


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)


def test_it_gets_through_and_is_asked_for_once(tmp_path, monkeypatch, two_cores):
    monkeypatch.setattr(cache, "folder", lambda: str(tmp_path / "new"))  # of the claim; the process has its own cache
    process = compile_ahead()
    assert compile_ahead() is None
    assert process.wait(timeout=300) == 0
    assert compile_ahead() is None
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_an_edited_kernel_is_asked_for_again(tmp_path, monkeypatch, two_cores):
    started = []
    monkeypatch.setattr(cache, "folder", lambda: str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    compile_ahead()
    source = tmp_path / "package" / "ahead.py"
    source.parent.mkdir()
    source.write_text("edited")
    monkeypatch.setattr(ahead, "__file__", str(source))
    compile_ahead()
    assert len(started) == 2


def test_without_a_spare_core_or_a_folder_or_a_process_nothing_is_done(tmp_path, monkeypatch, two_cores):
    monkeypatch.setattr(cache, "folder", lambda: None)
    assert compile_ahead() is None
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "folder", lambda: str(tmp_path / "file"))
    assert compile_ahead() is None

    def refuse(*args, **kwargs):
        raise PermissionError("no processes here")

    monkeypatch.setattr(cache, "folder", lambda: str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert compile_ahead() is None
    monkeypatch.setattr(ahead, "available_cores", lambda: 1)
    monkeypatch.setattr(cache, "folder", lambda: str(tmp_path / "other"))
    assert compile_ahead() is None
    assert not (tmp_path / "other").exists()


def test_nobody_has_to_keep_the_process(monkeypatch, two_cores):
    """Python warns of one that is dropped while it runs, and here a warning is an error."""
    start = subprocess.Popen
    monkeypatch.setattr(ahead, "_claim", lambda: True)
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda command, **rest: start(["sleep", "60"], **rest))
    compile_ahead()
    gc.collect()
    running = ahead._started.pop()
    assert running.poll() is None
    running.kill()
    running.wait()
