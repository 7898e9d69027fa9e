"""A folder of checkpoints, `step-N/` each: written aside and renamed, verified before use, pruned.

A checkpoint holds safetensors files, JSON files and, written last, `manifest.json` with the size and SHA-256 of each of
them. Whenever the process stops, a folder named `step-N` is whole; what a machine that lost power, or an editor, made
of it afterwards is found by the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm.files import atomic_write, sync_folder

from .weights import load_weights, save_weights

__all__ = ["Checkpoint", "CheckpointError", "CheckpointStore", "read_checkpoint", "verify_checkpoint"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")


class CheckpointError(ValueError):
    """A checkpoint that is torn, edited, or not one at all; the message names it and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: `tensors[group][name]` arrays, and `state`, which is plain JSON."""

    path: Path
    step: int
    tensors: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints in a folder; `keep_last` of them, and those that these refer to, survive pruning.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = CheckpointStore(folder.name, keep_last=2)
    >>> for step in (10, 20, 30):
    ...     path = store.save(step, {"model": {"w": np.full(2, step)}}, {"loss": 1 / step})
    >>> store.steps()
    [20, 30]
    >>> store.newest()[0].tensors["model"]["w"].tolist()
    [30, 30]
    >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike, keep_last: int = 3):
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; at least one checkpoint has to be kept")
        self.folder = Path(folder)
        self.keep_last = keep_last

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step}"

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, ascending; whether they are whole is not looked at."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir() if entry.is_dir())
        return sorted(int(match[1]) for match in matches if match)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Any]],
        state: Mapping[str, Any],
        *,
        files: Mapping[str, str] | None = None,
        refers_to: Iterable[int] = (),
    ) -> Path:
        """Writes a checkpoint, prunes the folder, and returns the path.

        `tensors[group]` becomes `group.safetensors`, `state` `state.json`, and `files` text files beside them. The
        steps in `refers_to` (the best so far, say) are kept for as long as this one is.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
        final, aside = self.path(step), self.folder / f".step-{step}.writing"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for group, arrays in tensors.items():
            save_weights(aside / f"{group}.safetensors", arrays)
        texts = {**(files or {}), _STATE: json.dumps(state, indent=1, allow_nan=False)}
        for name, text in texts.items():
            atomic_write(aside / name, text)
        entries = {path.name: _fingerprint(path) for path in sorted(aside.iterdir())}
        manifest = {"format": _FORMAT, "step": step, "refers_to": sorted(set(refers_to)), "files": entries}
        atomic_write(aside / _MANIFEST, json.dumps(manifest, indent=1))
        if final.exists():
            self._remove(step)
        os.rename(aside, final)
        sync_folder(self.folder)
        self.prune()
        return final

    def newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
        """The newest checkpoint that is whole (None if there is none), and why newer ones were refused."""
        refused = []
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.path(step)), refused
            except CheckpointError as error:
                refused.append(error)
        return None, refused

    def set_aside_after(self, step: int) -> list[Path]:
        """Renames checkpoints of later steps to `step-N.set-aside`, so that no run goes on from them; returns these."""
        moved = []
        for later in self.steps():
            if later > step:
                target = self.folder / f"step-{later}.set-aside"
                shutil.rmtree(target, ignore_errors=True)
                os.rename(self.path(later), target)
                moved.append(target)
        return moved

    def prune(self) -> None:
        """Removes all checkpoints but the newest `keep_last` and those they refer to, and what a stop left half."""
        newest = self.steps()[-self.keep_last :]
        kept = {*newest, *(other for step in newest for other in self._references(step))}
        for step in self.steps():
            if step not in kept:
                self._remove(step)
        for pattern in (".step-*.writing", ".step-*.removing"):
            for leftover in self.folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)

    def _references(self, step: int) -> list[int]:
        try:
            return _read_manifest(self.path(step))["refers_to"]
        except CheckpointError:
            return []

    def _remove(self, step: int) -> None:
        # Renamed first: a stop in the middle of deleting must not leave a folder named as a checkpoint.
        doomed = self.folder / f".step-{step}.removing"
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(self.path(step), doomed)
        shutil.rmtree(doomed)


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Verifies a checkpoint and reads all of it; CheckpointError (which file, what is wrong) if it is not whole.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = CheckpointStore(folder).save(7, {"model": {"w": np.ones(2)}}, {"seed": 1})
    ...     checkpoint = read_checkpoint(path)
    >>> checkpoint.step, checkpoint.tensors["model"]["w"], checkpoint.state
    (7, array([1., 1.]), {'seed': 1})
    """
    path = Path(path)
    manifest = verify_checkpoint(path)
    groups = [name.removesuffix(".safetensors") for name in manifest["files"] if name.endswith(".safetensors")]
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        tensors = {group: load_weights(path / f"{group}.safetensors") for group in groups}
    except (ValueError, RecursionError) as error:  # made so, for the manifest agrees
        raise CheckpointError(f"{path} is refused: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is refused: {_STATE} holds no JSON object")
    return Checkpoint(path, manifest["step"], tensors, state)


def verify_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a checkpoint, after every file was compared with it; CheckpointError if one is not as written."""
    path = Path(path)
    manifest = _read_manifest(path)
    match = _NAME.fullmatch(path.resolve().name)
    if match and int(match[1]) != manifest["step"]:
        raise CheckpointError(
            f"{path} is refused: its manifest is of step {manifest['step']}; it was renamed or edited"
        )
    for name, expected in manifest["files"].items():
        if not (path / name).is_file():
            raise CheckpointError(f"{path} is refused: its file {name} is missing")
        found = _fingerprint(path / name)
        if found["size"] != expected["size"]:
            raise CheckpointError(
                f"{path} is refused: {name} has {found['size']:,} bytes and was written with {expected['size']:,}"
            )
        if found != expected:
            raise CheckpointError(f"{path} is refused: {name} was changed since it was written (its SHA-256 differs)")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        version, names = manifest["format"], set(manifest["files"])
        well_formed = type(manifest["step"]) is int and isinstance(manifest["refers_to"], list)
        well_formed &= all(type(step) is int for step in manifest["refers_to"])
        well_formed &= all(_is_plain(name) for name in names)
        entries = manifest["files"].values()
        well_formed &= all({"size", "sha256"} == set(entry) and type(entry["size"]) is int for entry in entries)
    except FileNotFoundError:
        what = f"it has no {_MANIFEST}" if path.is_dir() else "there is no such folder"
        raise CheckpointError(f"{path} is no checkpoint: {what}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is refused: {_MANIFEST} is damaged ({error!r})") from error
    if version != _FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version!r}; this minilm reads {_FORMAT}")
    if not well_formed or _STATE not in names:
        raise CheckpointError(f"{path} is refused: {_MANIFEST} does not list what a checkpoint has")
    return manifest


def _is_plain(name: str) -> bool:
    """Whether it names a file in this folder, and nothing outside it."""
    return Path(name).name == name and name not in ("", "..") and name.isprintable() and len(name) < 200


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}
