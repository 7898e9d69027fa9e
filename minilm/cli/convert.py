"""`minilm convert`: a model from one form to another: a GGUF file or a run to a folder in Hugging Face form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from .errors import UsageError, as_usage_error
from .parsing import parse, place

__all__ = ["run"]


_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json")


@dataclass
class ConvertArguments:
    """What `minilm convert` takes."""

    source: Annotated[str, place("MODEL")]  # a GGUF file, a run's or a Hugging Face folder, or a name on the hub
    target: Annotated[str, place("FOLDER")]  # the folder to write: config.json, model.safetensors, tokenizer.json
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of the weights there


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(
        ConvertArguments,
        arguments,
        "convert",
        "Write a model as a folder that transformers loads.",
        positional="required",
    )
    target = Path(options.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already, and not an empty folder; name another")

    if target.suffix in _FILES:
        raise UsageError(f"{target} is named like a file, and what is written is a folder; name it {target.stem}, say")

    from .loading import load

    model, tokenizer = load(options.source, "cpu", "fp32")
    with as_usage_error():
        model.to(options.dtype).save_pretrained(target)
        tokenizer.save_pretrained(target)
    print(f"{target}: {type(model).__name__}, {model.n_parameters:,} parameters in {options.dtype}")
    return 0
