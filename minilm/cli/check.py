"""`minilm check`: what must be true of a model of text, verified on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from .errors import as_usage_error
from .parsing import parse, place

__all__ = ["run"]


@dataclass
class CheckArguments:
    """What `minilm check` takes."""

    run: Annotated[str, place("MODEL")]  # a run's folder, a checkpoint, a Hugging Face folder or a GGUF file
    length: int = 32  # tokens in a row of the test input; half the model's longest text at most
    seed: int = 0  # of the test input
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns 0 if every property holds, else 1."""
    description = "Verify on a model what must be true of every model of its kind; exit status 1 if it is not."
    options = parse(CheckArguments, arguments, "check", description, positional="required")

    from minilm.evaluation import check_model

    from .loading import load_alone

    model = load_alone(options.run, options.device, "fp32")
    print(f"{type(model).__name__} with {model.n_parameters:,} parameters, {options.run}")
    with as_usage_error():
        results = check_model(
            model, length=options.length, seed=options.seed, report=lambda result: print(result, flush=True)
        )
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} of {len(results)} properties hold")
    return 1 if failed else 0
