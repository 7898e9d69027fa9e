"""`minilm embed`: a vector for each line of a text."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from .errors import UsageError, as_usage_error
from .parsing import parse, place

__all__ = ["run"]


@dataclass
class EmbedArguments:
    """What `minilm embed` takes."""

    model: Annotated[str, place("MODEL")]  # folder of an encoder, with its tokenizer, or its name on the hub
    file: Annotated[str, place("FILE")]  # texts, one a line, in UTF-8; - for the standard input
    output: str | None = None  # a file that ends in .npy (an array, a row a line) or .jsonl; None: JSON lines, here
    batch_tokens: int = 2048  # tokens to compute together
    max_length: int | None = None  # tokens of a text that are seen; None: what the model's files say
    pooling: Literal["mean", "cls"] | None = None  # how tokens become one vector; None: what the model's files say
    normalize: bool | None = None  # vectors of length 1; None: what the model's files say
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(
        EmbedArguments, arguments, "embed", "Write a vector for each line of a text.", positional="required"
    )
    if options.output is not None:
        _check_place(Path(options.output))
    texts = _lines(options.file)

    from minilm.checkpoint.hub import fetch, is_hub_name
    from minilm.models.sentence import SentenceEmbedder

    from .loading import usable_device

    with as_usage_error():
        folder = fetch(options.model) if is_hub_name(options.model) else options.model
        embedder = SentenceEmbedder.from_pretrained(folder, options.pooling, options.normalize, options.max_length)
        embedder.model.to(usable_device(options.device))
        start = time.perf_counter()
        vectors = embedder(texts, options.batch_tokens)
    seconds = time.perf_counter() - start
    _write(options.output, texts, vectors)
    speed = f"{len(texts) / seconds:,.1f} texts/s" if texts else "no texts"
    count = "1 vector" if len(texts) == 1 else f"{len(texts)} vectors"
    print(f"{count} of {vectors.shape[1]} numbers, {speed}", file=sys.stderr)
    return 0


def _check_place(output: Path) -> None:
    """UsageError for what can't be written, before anything is computed."""
    if output.suffix not in (".npy", ".jsonl"):
        raise UsageError(f"output is {output}; expected a name that ends in .npy or .jsonl")
    if not output.parent.is_dir():
        raise UsageError(f"output is {output}, and there is no folder {output.parent}")
    if output.is_dir():
        raise UsageError(f"output is {output}, which is a folder; name a file")


def _lines(file: str) -> list[str]:
    """The texts; an empty line is one too, so that row i belongs to line i."""
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        lines = content.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text ({error}); convert it first") from error
    return lines[:-1] if lines[-1] == "" else lines


def _write(output: str | None, texts: list[str], vectors) -> None:
    import numpy as np

    from minilm.files import atomic_write

    if output is not None and output.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        atomic_write(output, buffer.getvalue())
        return
    # A float32's own shortest decimals, which give the same float32 back.
    lines = (
        json.dumps({"text": text, "embedding": [float(str(x)) for x in row]}, ensure_ascii=False) + "\n"
        for text, row in zip(texts, vectors)
    )
    if output is not None:
        atomic_write(output, "".join(lines))
        return
    for line in lines:
        sys.stdout.buffer.write(line.encode("utf-8"))
    sys.stdout.flush()
