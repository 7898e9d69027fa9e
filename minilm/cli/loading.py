"""A model and its tokenizer: from a run, one of its checkpoints, a folder in Hugging Face form, or a GGUF file."""

from __future__ import annotations

from pathlib import Path

from minilm import backend
from minilm.checkpoint import load_weights, verify_checkpoint
from minilm.checkpoint.gguf import read_gguf
from minilm.checkpoint.hub import fetch, is_hub_name
from minilm.models import load as load_model
from minilm.models.gguf import build_gguf
from minilm.tokenization import Tokenizer
from minilm.training import RunFolder

from .errors import UsageError, as_usage_error

__all__ = ["find", "load", "load_alone", "load_generator", "usable_device"]


def load(path: str, device: str, weights: str | None = None):
    """`(model, tokenizer)`, the model in eval mode on `device`; errors say what to do."""
    device = usable_device(device)
    with as_usage_error():
        place = find(path)
        if place.is_file():
            metadata, tensors = read_gguf(place)  # once, for both
            return build_gguf(metadata, tensors, weights or "keep", place).to(device), Tokenizer.from_gguf(metadata)
        return _model(place, weights).to(device), _tokenizer(place)


def load_alone(path: str, device: str, weights: str | None = None):
    """The model without a tokenizer, which its folder need not have."""
    device = usable_device(device)
    with as_usage_error():
        return _model(find(path), weights).to(device)


def _model(place: Path, weights: str | None):
    model = load_model(place, weights)
    if place.is_dir() and (place / "ema.safetensors").is_file():  # a checkpoint of a run that averages its weights
        model.load_state_dict(load_weights(place / "ema.safetensors"), strict=False)
    return model


def load_generator(path: str, device: str, weights: str | None = None):
    """As `load`, and a UsageError for a model that does not write text."""
    model, tokenizer = load(path, device, weights)
    if not hasattr(model, "generate"):
        raise UsageError(f"{path} holds a {type(model).__name__}, which does not write text")
    return model, tokenizer


def usable_device(device: str) -> str:
    """The device that was asked for, "auto" being the best one; a UsageError where it can't be had."""
    if device == "auto":
        return backend.default_device()
    if device == "cuda" and (problem := backend.cuda_problem()) is not None:
        raise UsageError(f"device 'cuda' can't be used here: {problem}")
    return device


def find(path: str) -> Path:
    """The folder with the weights, or the GGUF file, that `path` stands for; one of the hub's names is fetched."""
    if is_hub_name(path):
        return fetch(path)
    place = Path(path)
    if place.is_file():
        if place.suffix != ".gguf":
            raise UsageError(f"{path} is no model: expected a folder, or a file that ends in .gguf")
        return place
    files = sorted(place.glob("*.gguf"))
    if len(files) == 1 and not (place / "config.json").is_file():
        return files[0]
    folder = RunFolder(path).weights_folder()
    if (folder / "manifest.json").is_file():
        verify_checkpoint(folder)
    return folder


def _tokenizer(folder: Path) -> Tokenizer:
    run = folder.resolve().parent.parent  # of RUN/checkpoints/step-N
    if (folder / "manifest.json").is_file() and (run / "tokenizer.json").is_file():
        return Tokenizer.from_file(run)
    return Tokenizer.from_pretrained(folder)
