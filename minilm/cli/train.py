"""`minilm train`: from a preset, a file and the command line to a trained model in a run folder."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import minilm_kernels

from minilm.training import (
    PRESETS,
    Config,
    ConfigError,
    Run,
    RunFolder,
    load_config_file,
    matrix_rate,
    merge,
    preset,
)  # fmt: skip

from .errors import UsageError, as_usage_error, said
from .parsing import parse
from .progress import TrainingProgress

__all__ = ["run"]


@dataclass(frozen=True)
class TrainArguments(Config):
    """What `minilm train` takes: a configuration, and two ways to come by one."""

    config: str | None = None  # a TOML, YAML or JSON file of settings; the command line overrides it
    resume: str | None = None  # auto: go on with the run in output-dir if there is one; or a run's or checkpoint's path


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    folder, checkpoint, base, options = _settings(arguments)
    config = _completed(base, options, folder)
    if config.device != "cuda":
        matrix_rate("cpu")  # measured once, and now, while both cores are free
        minilm_kernels.compile_ahead()  # while the data are prepared and the first step's first half is compiled
    with TrainingProgress(config) as progress:
        common = {"callbacks": [progress], "progress": progress.on_tokens}
        try:
            with as_usage_error():
                if RunFolder(folder).is_run and options.resume is not None:
                    training = Run.resume(folder, config, checkpoint=checkpoint, **common)
                else:
                    training = Run.start(config, folder, **common)
            progress.show_run(training)
            outcome = training.fit()
        except (KeyboardInterrupt, OSError) as error:  # a full disk, say
            if isinstance(error, BrokenPipeError) or not RunFolder(folder).is_run:
                raise
            if isinstance(error, OSError):
                raise UsageError(f"{said(error)}. To go on from the last checkpoint then: {_go_on(folder)}") from error
            progress.print(f"stopped at once; to go on from the last checkpoint: {_go_on(folder)}")
            return 130
    return _farewell(training, outcome, progress, folder)


def _settings(arguments: Sequence[str]) -> tuple[Path, Path | None, Config, TrainArguments]:
    """The run folder, the checkpoint asked for, the configuration that options are laid over, and the options."""
    # What the defaults of all other options depend on is looked for first.
    first = argparse.ArgumentParser(prog="minilm train", add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--resume", "--output-dir"):
        first.add_argument(name, *([name.replace("-", "_").replace("__", "--")] if "-d" in name[2:] else []))
    early, _ = first.parse_known_args(arguments)
    settings = load_config_file(early.config) if early.config else {}
    name = early.preset or settings.get("preset") or "default"
    if not isinstance(name, str):
        raise ConfigError(f"{early.config}: 'preset' is a text, and {name!r} was given")
    base = preset(name)
    folder, checkpoint = _place(early, settings.get("output_dir") or f"runs/{name}")
    if early.resume is not None and RunFolder(folder).is_run:
        base = RunFolder(folder).read_config()
    base = dataclasses.replace(merge(base, settings, source=early.config or ""), output_dir=str(folder))
    default = TrainArguments(**_fields(base), config=early.config, resume=early.resume)
    presets = "\n".join(f"  {name}: {what}" for name, (what, _) in PRESETS.items())
    description = (
        "Train a GPT on text. With no argument: on the source of the Python standard library.\n\n"
        f"Presets (--preset NAME), over which a file (--config FILE) and the options below are laid:\n\n{presets}"
    )
    return folder, checkpoint, base, parse(TrainArguments, arguments, "train", description, default)


def _place(early: argparse.Namespace, default_folder: str) -> tuple[Path, Path | None]:
    """The run folder, and the checkpoint to go on from if one was named."""
    if early.resume in (None, "auto"):
        return Path(early.output_dir or default_folder), None
    path = Path(early.resume)
    if RunFolder(path).is_run:
        folder, checkpoint = path, None
    elif path.parent.name == "checkpoints" and path.is_dir():
        folder, checkpoint = path.parent.parent, path
    else:
        raise UsageError(
            f"--resume {path}: expected auto, a run folder, or a checkpoint in one (RUN/checkpoints/step-N)"
            + ("" if path.exists() else "; there is no such folder")
        )
    if early.output_dir and Path(early.output_dir).resolve() != folder.resolve():
        raise UsageError(f"--resume names a run in {folder}, and --output-dir {early.output_dir}; leave one out")
    return folder, checkpoint


def _completed(base: Config, options: TrainArguments, folder: Path) -> Config:
    """The options as a configuration, with what follows from one option for another."""
    config = Config(**_fields(options))
    changed = {name for name, value in _fields(config).items() if value != getattr(base, name)}
    if "output_dir" in changed or "preset" in changed:  # neither came through as it was read at first
        raise UsageError("--preset and --output-dir are given once, as --preset NAME and --output-dir DIR")
    if "tokenizer" in changed and "vocab_size" not in changed and config.tokenizer != "bpe":
        config = dataclasses.replace(config, vocab_size=None)  # the preset's is for its own tokenizer
    if "data" in changed and config.train.sample_prompt == base.train.sample_prompt:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, sample_prompt=None))
    # A run may be gone on with from another working directory.
    paths = {name: tuple(str(Path(path).absolute()) for path in getattr(config, name)) for name in ("data", "val_data")}
    if config.tokenizer not in ("char", "byte", "bpe") and Path(config.tokenizer).exists():
        paths["tokenizer"] = str(Path(config.tokenizer).absolute())
    return dataclasses.replace(config, output_dir=str(folder), **paths)


def _fields(config: Config) -> dict:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}


def _farewell(training: Run, outcome: str, progress: TrainingProgress, folder: Path) -> int:
    trainer = training.trainer
    if outcome == "interrupted":
        progress.print(f"interrupted after step {trainer.step}, and saved; to go on: {_go_on(folder)}")
        return 128 + trainer.signal
    with trainer.best_weights():
        progress.show_sample(trainer, training.tokenizer, tokens=2 * training.config.train.sample_tokens)
    progress.show_result(trainer)
    place, prompt = shlex.quote(str(folder)), training.config.train.sample_prompt
    asked = f"--prompt {shlex.quote(prompt)} " if prompt else ""
    progress.print(f"\nnext:  minilm generate {place} {asked}--max-new-tokens 200")
    progress.print(f"       minilm check {place}")
    return 0


def _go_on(folder: Path) -> str:
    return f"minilm train --resume auto --output-dir {shlex.quote(str(folder))}"
