"""What a training run is told: typed dataclasses, read from presets, files and the command line, kept as JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilm.autograd import PRECISIONS
from minilm.nn import RECOMPUTE
from minilm.optim import Schedule, make_schedule

__all__ = ["Config", "ConfigError", "ModelConfig", "OptimConfig", "TrainConfig", "load_config_file", "merge"]


class ConfigError(ValueError):
    """A setting that does not exist, has the wrong type or an impossible value; the message names it."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model, a GPT-2."""

    n_layer: int = 4  # layers
    n_head: int = 4  # attention heads a layer
    n_embd: int = 256  # width; a multiple of n_head
    n_positions: int = 256  # the longest text, in tokens, that the model can look at
    dropout: float = 0.0  # share of activations dropped in training
    tie_word_embeddings: bool = True  # one matrix for token embeddings and the output layer


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are changed: AdamW and its learning-rate schedule."""

    lr: float = 1e-3  # peak learning rate
    min_lr: float = 1e-4  # learning rate at the end of the schedule
    schedule: str = "cosine"  # cosine, linear, constant, wsd, inverse_sqrt or plateau
    warmup_steps: int = 100  # steps in which the learning rate rises to its peak
    beta1: float = 0.9  # decay of the mean of gradients
    beta2: float = 0.99  # decay of the mean of squared gradients
    eps: float = 1e-8  # added to the denominator
    weight_decay: float = 0.1  # of matrices; biases and norms are not decayed
    decay_embeddings: bool = False  # whether the embedding tables decay too, as in nanoGPT


@dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    >>> TrainConfig(steps=100, batch_size=8).context
    256
    >>> TrainConfig(steps=0)
    Traceback (most recent call last):
    ...
    minilm.training.config.ConfigError: train.steps is 0; expected at least 1
    """

    steps: int = 1000  # optimiser steps
    batch_size: int = 16  # sequences in a batch
    context: int = 256  # tokens in a sequence
    accumulation: int = 1  # batches whose gradients make one step
    grad_clip: float = 1.0  # largest norm of the gradient; 0 for no clipping
    eval_interval: int = 250  # steps between evaluations on the validation split; the last step is always evaluated
    eval_batches: int | None = None  # batches of an evaluation; None: the whole validation split
    eval_batch_size: int | None = None  # sequences in a batch of an evaluation; None: batch_size
    checkpoint_interval: int | None = None  # steps between checkpoints; None: after each evaluation
    keep_last: int = 3  # checkpoints kept besides the best
    early_stopping: int | None = None  # stop after this many evaluations without a better validation loss
    ema_decay: float | None = None  # evaluate and publish a moving average of the weights with this decay
    cuda_graph: bool = True  # on a GPU, launch a step as one CUDA graph
    overfit_one_batch: bool = False  # train on the first batch again and again, to see that the model can learn at all
    sample_interval: int | None = None  # steps between printed samples; None: after each evaluation; 0: none
    sample_tokens: int = 96  # tokens of a sample
    sample_prompt: str | None = None  # what a sample begins with; None: the start of the validation text

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "context", "accumulation", "eval_interval", "keep_last", "sample_tokens"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("eval_batches", "eval_batch_size", "checkpoint_interval", "early_stopping"):
            if getattr(self, name) is not None:
                _at_least(f"train.{name}", getattr(self, name), 1)
        if self.sample_interval is not None:
            _at_least("train.sample_interval", self.sample_interval, 0)
        _at_least("train.grad_clip", self.grad_clip, 0)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay is {self.ema_decay}; expected a number between 0 and 1, such as 0.99")


@dataclass(frozen=True)
class Config:
    """A whole training run.

    >>> Config(tokenizer="char", model=ModelConfig(n_layer=2), train=TrainConfig(steps=500)).check().model.n_embd
    256
    >>> Config(device="gpu").check()
    Traceback (most recent call last):
    ...
    minilm.training.config.ConfigError: device is 'gpu'; expected auto, cpu or cuda
    """

    preset: str = "default"  # the preset whose settings the run starts from
    data: tuple[str, ...] = ()  # text files or folders, or one prepared folder; empty: the Python standard library
    val_data: tuple[str, ...] = ()  # text to validate on; empty: a part of the data is held out
    val_fraction: float = 0.1  # share of the data held out for validation
    tokenizer: str = "bpe"  # char, byte, bpe, or the path of a tokenizer.json
    vocab_size: int | None = None  # size of the vocabulary that bpe learns; None: 4096
    output_dir: str = ""  # the run folder; empty: runs/PRESET
    seed: int = 1337  # of initial weights, data order and dropout
    device: str = "auto"  # auto, cpu or cuda
    precision: str = "fp32"  # fp32, bf16, fp16, or on a GPU tf32; the weights stay float32
    recompute: str = "none"  # attention or block: computed again in the backward pass, which takes time for memory
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def check(self) -> Config:
        """This configuration, if its settings fit together; else ConfigError naming those that do not."""
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device is {self.device!r}; expected auto, cpu or cuda")
        for name, known in (("precision", PRECISIONS), ("recompute", RECOMPUTE)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        _at_least("seed", self.seed, 0)
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction is {self.val_fraction}; expected a share between 0 and 1, such as 0.1")
        for name in ("n_layer", "n_head", "n_embd", "n_positions"):
            _at_least(f"model.{name}", getattr(self.model, name), 1)
        if self.model.n_embd % self.model.n_head:
            raise ConfigError(f"model.n_embd ({self.model.n_embd}) is no multiple of n_head ({self.model.n_head})")
        if not 0 <= self.model.dropout < 1:
            raise ConfigError(f"model.dropout is {self.model.dropout}; expected a share in [0, 1)")
        if self.train.context > self.model.n_positions:
            raise ConfigError(
                f"train.context is {self.train.context}, and the model has {self.model.n_positions} positions: "
                f"lower train.context, or raise model.n_positions to {self.train.context}"
            )
        optim = self.optim
        if not optim.lr > 0:
            raise ConfigError(f"optim.lr is {optim.lr}; expected a positive number, such as 1e-3")
        if not 0 <= optim.min_lr <= optim.lr:
            raise ConfigError(f"optim.min_lr is {optim.min_lr}; expected 0 to optim.lr, which is {optim.lr}")
        for name in ("warmup_steps", "weight_decay", "eps"):
            _at_least(f"optim.{name}", getattr(optim, name), 0)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(optim, name) < 1:
                raise ConfigError(f"optim.{name} is {getattr(optim, name)}; expected a number in [0, 1)")
        try:
            self.make_schedule()
        except ValueError as error:
            short = self.train.steps <= optim.warmup_steps
            hint = ": raise train.steps, or lower optim.warmup_steps" if short else ""
            raise ConfigError(f"optim.schedule {optim.schedule!r} does not fit: {error}{hint}") from error
        return self

    def make_schedule(self) -> Schedule:
        """The learning-rate schedule that `optim` and `train.steps` describe."""
        factor = self.optim.min_lr / self.optim.lr
        return make_schedule(
            self.optim.schedule, steps=self.train.steps, warmup=self.optim.warmup_steps, min_factor=factor
        )

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Config:
        """The configuration with these settings, the defaults elsewhere; ConfigError for an unknown or mistyped one."""
        return merge(cls(), settings)


def merge(base, settings: Mapping[str, Any], source: str = "", prefix: str = ""):
    """`base`, a dataclass, with the nested `settings` put over it; each is checked against the field's type.

    >>> merge(Config(), {"train": {"steps": 5}}).train.steps
    5
    >>> merge(Config(), {"train": {"step": 5}})
    Traceback (most recent call last):
    ...
    minilm.training.config.ConfigError: there is no setting 'train.step'; did you mean 'train.steps'?
    """
    hints = typing.get_type_hints(type(base))
    changes = {}
    where = f"{source}: " if source else ""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key not in hints:
            near = difflib.get_close_matches(name, [f"{prefix}{k}" for k in hints] + _all_names(Config), 1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(hints)}"
            raise ConfigError(f"{where}there is no setting {name!r}; {hint}")
        current = getattr(base, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}{name!r} is a section of settings, and {value!r} was given")
            changes[key] = merge(current, value, source, f"{name}.")
        else:
            changes[key] = _typed(hints[key], value, f"{where}{name!r}")
    return dataclasses.replace(base, **changes)


def load_config_file(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML, YAML or JSON file, by its suffix.

    Raises ConfigError for a missing or malformed file, ImportError (naming the extra) for YAML without PyYAML.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "run.json").write_text('{"train": {"steps": 5}}')
    ...     load_config_file(Path(folder, "run.json"))
    {'train': {'steps': 5}}
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    suffix = path.suffix.lower()
    try:
        settings = _parse(path.read_text(encoding="utf-8"), suffix, path)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path} can't be read as {suffix[1:].upper()}: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds {type(settings).__name__}; expected settings by name, such as train.steps")
    return settings


def _parse(text: str, suffix: str, path: Path):
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix == ".json":
        return json.loads(text)
    if suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path} is no configuration file: expected a name that ends in .toml, .yaml, .yml or .json")
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            f"{path} is YAML, and the package PyYAML is not installed: pip install 'minilm[yaml]', or write the file "
            "as TOML"
        ) from error
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _typed(hint, value, name: str):
    """`value`, if it is of the type that a field's annotation says (a whole number will do for a float)."""
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in hint.__args__:
            return None
        (hint,) = (part for part in hint.__args__ if part is not type(None))
    if typing.get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if isinstance(value, str):
            return (value,)
        raise ConfigError(f"{name} is a list of texts, and {value!r} was given")
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ConfigError(f"{name} is {names[hint]}, and {value!r} was given")
    return value


def _all_names(cls, prefix: str = "") -> list[str]:
    names = []
    for key, hint in typing.get_type_hints(cls).items():
        names += _all_names(hint, f"{prefix}{key}.") if dataclasses.is_dataclass(hint) else [f"{prefix}{key}"]
    return names


def _at_least(name: str, value: float, least: float) -> None:
    if isinstance(value, (str, dict)):
        hint = "; a dict's settings go by name: **settings" if isinstance(value, dict) else ""
        raise ConfigError(f"{name} is {value!r:.60}; expected a number{hint}")
    if not value >= least:
        raise ConfigError(f"{name} is {value}; expected at least {least}")
