"""A trained model and its tokenizer, from a run folder, one of its checkpoints, or a folder in Hugging Face form."""

from __future__ import annotations

from pathlib import Path

from minilm import backend
from minilm.checkpoint import load_weights, verify_checkpoint
from minilm.models import GPT2
from minilm.tokenization import Tokenizer
from minilm.training import RunFolder

from .errors import UsageError, as_usage_error

__all__ = ["load"]


def load(path: str, device: str):
    """`(model, tokenizer)`, the model in eval mode on `device`; errors say what to do."""
    folder = RunFolder(path).weights_folder()
    if (folder / "manifest.json").is_file():
        verify_checkpoint(folder)
    if device == "auto":
        device = backend.default_device()
    if device == "cuda" and (problem := backend.cuda_problem()) is not None:
        raise UsageError(f"device 'cuda' can't be used here: {problem}")
    with as_usage_error():
        model = GPT2.from_pretrained(folder)
        if (folder / "ema.safetensors").is_file():  # a checkpoint of a run that averages its weights
            model.load_state_dict(load_weights(folder / "ema.safetensors"), strict=False)
        return model.to(device), Tokenizer.from_file(_tokenizer_file(folder))


def _tokenizer_file(folder: Path) -> Path:
    run = folder.resolve().parent.parent  # of RUN/checkpoints/step-N
    for place in (folder, run):
        if (place / "tokenizer.json").is_file():
            return place / "tokenizer.json"
    raise UsageError(f"{folder} has no tokenizer.json; put the model's beside its weights")
