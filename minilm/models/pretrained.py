"""Configs and weights as files that the rest of the field can read: config.json, model.safetensors."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from minilm import nn
from minilm.autograd import Tensor
from minilm.backend import array_module
from minilm.checkpoint.weights import map_weights, save_weights
from minilm.files import atomic_write

from .field_types import check_fields

__all__ = ["Config", "PretrainedModel", "naming", "read_config", "room_for"]


# What generation_config.json says of tokens; the ways to decode that it may name are left to whoever calls `generate`.
_GENERATION = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "bad_words_ids",
)  # fmt: skip


class Config:
    """Base of the model configs: dataclasses whose fields are the keys of transformers' config.json.

    >>> from minilm.models import GPT2Config
    >>> config = GPT2Config.from_dict({"n_embd": 64, "n_head": 4, "summary_type": "cls_index"})
    >>> config.n_embd, config.to_dict()["model_type"]
    (64, 'gpt2')
    """

    model_type: str
    refused: tuple[str, ...] = ()  # keys of transformers that change the model, in a way that ours does not

    def _check_counts(self, *names: str) -> None:
        """TypeError or ValueError unless these fields are integers of at least 1."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)):
                kind, cls = type(value).__name__, type(self).__name__
                hint = f": a dict's keys are fields as {cls}(**values)" if isinstance(value, dict) else ""
                raise TypeError(f"{name} of a {cls} is an integer; got {value!r:.60}, a {kind}{hint}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")

    def _check_probabilities(self, *names: str) -> None:
        """ValueError unless these fields lie between 0 and 1."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {getattr(self, name)}")

    def to_dict(self) -> dict:
        """The config as config.json holds it, but for what only a model knows: its architecture and its dtype."""
        return {"model_type": self.model_type, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """A config from the keys that it knows; others, which concern other programs, are left out.

        Raises ValueError for another kind of model, for values of another type than the field's, and for switches that
        are on and not supported.
        """
        kind = values.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(f"{cls.__name__} describes a {cls.model_type!r} model; this config is of a {kind!r} model")
        for name in cls.refused:
            if values.get(name):
                raise ValueError(f"the config has {name} = {values[name]!r}, which {cls.__name__} does not support")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        check_fields(cls, values)
        return cls(**values)


class PretrainedModel(nn.Module):
    """A model that knows its config and goes to and comes from a folder of files.

    A class of your own names `config_class` (a dataclass that derives from Config, with a `model_type`) and
    `architecture`, takes the config as its first argument and keeps it as `self.config`.

    >>> import tempfile
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_pretrained(folder)
    ...     print(*sorted(path.name for path in Path(folder).iterdir()))
    ...     GPT2.from_pretrained(folder).config == model.config
    config.json generation_config.json model.safetensors
    True
    """

    config_class: type[Config]
    architecture: str  # the name of transformers' class with the same weights
    base_prefix = ""  # what the names of the weights begin with, in files that hold the head as well
    config: Config

    def __setattr__(self, name: str, value) -> None:
        if name == "config" and not isinstance(value, getattr(self, "config_class", object)):
            raise TypeError(self._of_no_config(value))
        super().__setattr__(name, value)

    def _of_no_config(self, value) -> str:
        """What to do instead of making a model of something that is not its config."""
        cls, config = type(self).__name__, self.config_class.__name__
        what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        hint = f"{config}() is one, with the sizes that you want"
        if isinstance(value, dict):
            hint = f"{config}(**values) makes one of a dict"
        elif isinstance(value, (str, os.PathLike)):
            hint = f"{cls}.from_pretrained({os.fspath(value)!r}) loads the model that a folder holds"
        return f"{cls} is made of a {config}, not of {what}; {hint}"

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes config.json and model.safetensors, which transformers loads as they are.

        For a model that generates, generation_config.json as well.
        """
        for name in ("architecture", "config"):
            if not hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__} has no {name}: to be saved, a model's class names its `config_class` and "
                    "`architecture`, and sets self.config"
                )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        kind = {"architectures": [self.architecture], "dtype": next(self.parameters()).dtype.name}
        _write_json(folder / "config.json", {**kind, **self.config.to_dict()})
        if hasattr(self, "generate"):
            found = {name: getattr(self.config, name, None) for name in _GENERATION}
            _write_json(folder / "generation_config.json", {k: v for k, v in found.items() if v is not None})
        save_weights(folder / "model.safetensors", self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **settings) -> Self:
        """The model that a folder holds, in eval mode and float32; `settings` are further ones of the class.

        Weights come from model.safetensors or from the files that model.safetensors.index.json names, in any dtype, and
        each is read once, into its place. Names are accepted with and without the family's prefix. Raises
        FileNotFoundError for a folder without config.json or weights, KeyError or ValueError (every name listed) for
        weights that do not fit, ValueError for a config that is damaged, or of a far larger model than the weights. The
        tokens that begin and end a text are generation_config.json's where it names them, as in transformers.
        """
        path = Path(folder) / "config.json"
        values = read_config(folder)
        if hasattr(cls, "generate"):
            values |= _read_generation_config(Path(folder) / "generation_config.json")
        with naming(path):
            config = cls.config_class.from_dict(values)
        weights = map_weights(folder)
        with naming(path), nn.init.left_out(room_for(weights.values())):
            model = cls(config, **settings)
        try:
            model.load_state_dict(model.own_names(weights))
        except (KeyError, ValueError) as error:
            raise type(error)(f"{folder}: {error.args[0]}") from None
        return model.eval()

    def _integers(self, values):
        """A raw array of an array, a Tensor or nested lists, on the device that it comes from; None stays None.

        Embeddings and losses look at tokens on the host, where that is quick, and send them to the GPU themselves.
        """
        if values is None:
            return None
        values = values.data if isinstance(values, Tensor) else values
        ours = isinstance(values, np.ndarray) or array_module(values) is not np
        return values if ours else np.asarray(values)  # torch's, say

    def own_names(self, weights: dict) -> dict:
        """The weights of a file under this model's names: with the family's prefix, where the file leaves it out."""
        own = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        prefixed = {name: f"{self.base_prefix}{name}" for name in weights}
        return {prefixed[name] if prefixed[name] in own else name: array for name, array in weights.items()}


def read_config(folder: str | os.PathLike) -> dict:
    """What a model's config.json says. FileNotFoundError where there is none, ValueError for one that is damaged."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; is it a model's or a finished run's folder?"
            if Path(folder).is_dir()
            else f"there is no folder {folder}; expected a model's, or a finished run's"
        )
    return _read_json(path)


def _read_generation_config(path: Path) -> dict:
    """The tokens that a generation_config.json names, if there is one; ValueError for what is no token.

    Tokens that it does not force or ban are not, as in transformers, whatever config.json says.
    """
    if not path.is_file():
        return {}
    found = {name: value for name, value in _read_json(path).items() if name in _GENERATION and value is not None}
    for name, value in found.items():
        words = value if name == "bad_words_ids" else [value if isinstance(value, list) else [value]]
        lists = isinstance(words, list) and all(isinstance(word, list) for word in words)
        if not lists or not all(type(token) is int for word in words for token in word):
            raise ValueError(f"{path}: {name} is {value!r}; expected tokens, which are integers")
    return dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")) | found


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the encoding, of JSON, of a number too long to be read
        raise ValueError(f"{path} is no intact JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no model's config: it holds no JSON object")
    return values


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """A `with` block that computes with what a file says: what goes wrong in it is a ValueError that names the file."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def room_for(weights) -> int:
    """How many numbers a model of these weights may make: more than they are, for some are missing or not stored."""
    return 2 * sum(math.prod(weight.shape) for weight in weights) + 2**20


def _write_json(path: Path, values: dict) -> None:
    atomic_write(path, json.dumps(values, indent=2) + "\n")
