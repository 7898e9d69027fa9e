"""The folder that a training run leaves: what lies where, and which folders may become one."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

from minilm.checkpoint import CheckpointStore
from minilm.files import atomic_write

from .config import Config, ConfigError

__all__ = ["RunFolder", "RunFolderError"]

_MARKS = ("training.json", "metrics.jsonl", "checkpoints", "config.json", "model.safetensors")


class RunFolderError(ValueError):
    """A folder that can't be started in or gone on in; the message says why and what to do."""


class RunFolder:
    """A run's folder.

    | name                                           | what                                                        |
    | ---------------------------------------------- | ----------------------------------------------------------- |
    | training.json                                  | the configuration; the first thing to be there              |
    | data/                                          | the prepared corpus, if the run prepared it                 |
    | tokenizer.json, tokenizer_config.json          | the tokenizer, for this and other libraries                 |
    | metrics.jsonl                                  | a row a step                                                |
    | checkpoints/step-N/                            | all that going on needs                                     |
    | config.json, model.safetensors                 | the best weights, once training ended or was interrupted    |
    | generation_config.json, loss.png               | likewise                                                    |
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.data = self.path / "data"
        self.config_file = self.path / "training.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.loss_image = self.path / "loss.png"
        self._lock: weakref.finalize | None = None

    @property
    def is_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    @property
    def is_published(self) -> bool:
        """Whether there are weights to use, in one file or, as others publish them, in several."""
        weights = (self.path / name for name in ("model.safetensors", "model.safetensors.index.json"))
        return (self.path / "config.json").is_file() and any(file.is_file() for file in weights)

    def create(self, config: Config) -> None:
        """Makes the folder one of a run with this configuration; RunFolderError if anything is in it already."""
        visible = [entry.name for entry in self.path.iterdir() if entry.name[0] != "."] if self.path.is_dir() else []
        if any(name in _MARKS for name in visible):
            raise RunFolderError(
                f"{self.path} holds another run; choose another folder with --output-dir, or go on with that run: "
                f"minilm train --resume auto --output-dir {self.path}"
            )
        if visible or (self.path.exists() and not self.path.is_dir()):
            found = f"holds {visible[0]!r}" if visible else "is a file"
            raise RunFolderError(f"{self.path} {found} and is no run; give a new or empty folder with --output-dir")
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        """Writes training.json."""
        atomic_write(self.config_file, json.dumps(config.to_dict(), indent=2) + "\n")

    def read_config(self) -> Config:
        """The configuration that the run was started with; RunFolderError if there is none or it is damaged."""
        try:
            return Config.from_dict(json.loads(self.config_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.path} holds no run (no training.json there); start one: minilm train --output-dir {self.path}"
            ) from None
        except (ConfigError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise RunFolderError(f"{self.config_file} is damaged: {error}") from error

    def lock(self) -> None:
        """Holds the folder until `unlock()` or the process ends, however it does; RunFolderError if another has it."""
        if self._lock is not None and self._lock.alive:
            return
        try:
            import fcntl
        except ImportError:  # Windows has other locks; there, two processes in one folder are not found out
            return
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunFolderError(
                f"another process is training in {self.path}; wait for it, stop it, or choose another --output-dir"
            ) from None
        self._lock = weakref.finalize(self, os.close, descriptor)
        for folder in (self.path, self.data):  # what a kill left half written, whoever wrote it
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()

    def unlock(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            self._lock()

    def discard(self) -> None:
        """Undoes `create`, for a run that could not begin; nothing of a run that took a step is ever deleted."""
        if self.metrics.exists() or CheckpointStore(self.checkpoints).steps():
            return
        self.unlock()
        shutil.rmtree(self.data, ignore_errors=True)
        for name in ("training.json", "tokenizer.json", "tokenizer_config.json", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # it may have been there before, with hidden files in it
            self.path.rmdir()

    def publish_tokenizer(self, tokenizer) -> None:
        """Writes the tokenizer where this library and others look for it."""
        atomic_write(self.path / "tokenizer.json", tokenizer.library.to_str(pretty=True))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if tokenizer.eos_token is not None:
            settings |= {"eos_token": tokenizer.eos_token, "bos_token": tokenizer.eos_token}
        atomic_write(self.path / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")

    def weights_folder(self) -> Path:
        """Where the weights to use are: here. RunFolderError for a missing or unfinished run says what to do."""
        if self.is_published:
            return self.path
        if not self.path.is_dir():
            raise RunFolderError(
                f"there is no run folder {self.path}, nor a model's; to train one: "
                f"minilm train --output-dir {self.path}"
            )
        if not self.is_run:
            raise RunFolderError(
                f"{self.path} is no run folder: it has no config.json and model.safetensors; give the folder that "
                "minilm train wrote, or a model's in Hugging Face form"
            )
        steps = CheckpointStore(self.checkpoints).steps()
        now = f", or use its newest checkpoint, {self.checkpoints / f'step-{steps[-1]}'}" if steps else ""
        go_on = f"minilm train --resume auto --output-dir {self.path}"
        raise RunFolderError(f"the run in {self.path} is unfinished; go on with: {go_on}{now}")
