"""Configs and weights as files that the rest of the field can read: config.json, model.safetensors."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Self

from minilm import nn
from minilm.backend import Generator
from minilm.checkpoint.files import atomic_write
from minilm.checkpoint.weights import load_weights, save_weights
from minilm.generation import GenerationMixin

__all__ = ["Config", "PretrainedModel"]


class Config:
    """Base of the model configs: dataclasses whose fields are the keys of transformers' config.json."""

    model_type: str
    architecture: str
    refused: tuple[str, ...] = ()  # keys of transformers that change the model, in a way that ours does not

    def to_dict(self) -> dict:
        """The config as config.json holds it, for float32 weights."""
        kind = {"architectures": [self.architecture], "model_type": self.model_type, "dtype": "float32"}
        return {**kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """A config from the keys that it knows; others, which concern other programs, are left out.

        Raises ValueError for another kind of model, and for switches that are on and not supported.
        """
        kind = values.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(f"{cls.__name__} describes a {cls.model_type!r} model; this config is of a {kind!r} model")
        for name in cls.refused:
            if values.get(name):
                raise ValueError(f"the config has {name} = {values[name]!r}, which {cls.__name__} does not support")
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


class PretrainedModel(GenerationMixin, nn.Module):
    """A model that knows its config and goes to and comes from a folder of files."""

    config_class: type[Config]
    base_prefix = ""  # what the names of the weights begin with, in files that hold the head as well
    config: Config

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes config.json, generation_config.json and model.safetensors, which transformers loads as they are."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tokens = {key: getattr(self.config, key, None) for key in ("bos_token_id", "eos_token_id")}
        dtype = next(self.parameters()).dtype.name
        _write_json(folder / "config.json", {**self.config.to_dict(), "dtype": dtype})
        _write_json(folder / "generation_config.json", {k: v for k, v in tokens.items() if v is not None})
        save_weights(folder / "model.safetensors", self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Self:
        """The model that a folder holds, in eval mode and float32.

        Weight names are accepted with and without the family's prefix. Raises FileNotFoundError for a folder without
        config.json or model.safetensors, KeyError or ValueError (every name listed) for weights that do not fit.
        """
        folder = Path(folder)
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no config.json; is it a model's or a finished run's folder?")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no intact JSON: {error}") from None
        model = cls(cls.config_class.from_dict(values), Generator(0))
        model.load_state_dict(model.own_names(load_weights(folder / "model.safetensors")))
        return model.eval()

    def own_names(self, weights: dict) -> dict:
        """The weights of a file under this model's names: with the family's prefix, where the file leaves it out."""
        own = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        prefixed = {name: f"{self.base_prefix}{name}" for name in weights}
        return {prefixed[name] if prefixed[name] in own else name: array for name, array in weights.items()}


def _write_json(path: Path, values: dict) -> None:
    atomic_write(path, json.dumps(values, indent=2) + "\n")
