"""`minilm generate`: text from a trained model, shown as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from .decoding import DRAWING, DecodingArguments, ShownText, show
from .errors import as_usage_error
from .parsing import parse, place

__all__ = ["first_tokens", "run"]


@dataclass(kw_only=True)
class GenerateArguments(DecodingArguments):
    """What `minilm generate` takes."""

    run: Annotated[str, place("MODEL")]  # a run's folder, a checkpoint, a Hugging Face folder or a GGUF file
    prompt: str = ""  # what the text begins with
    ignore_eos: bool = False  # go on past the end of a text
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"  # what to compute in; tf32 on a GPU only
    num_beams: int = 1  # above 1: the likeliest of texts that are followed at once, nothing is drawn
    length_penalty: float = 1.0  # of beams; above 0 long texts are favoured
    cache_implementation: Literal["dynamic", "static", "sliding_window"] = "dynamic"  # what is kept of the tokens, how

    def without_effect(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Why some options change nothing beside the others, and which."""
        yield from super().without_effect()
        if self.num_beams > 1:
            yield "--num-beams above 1 draws nothing; leave one of the two out", DRAWING
        if self.num_beams == 1:
            yield "it is for --num-beams above 1", ("length_penalty",)


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(
        GenerateArguments,
        arguments,
        "generate",
        "Write text with a trained model, shown as it comes.",
        positional="required",
    )
    options.check()

    from minilm.autograd import check_precision, compute_in, precision_notice

    from .loading import load_generator

    model, tokenizer = load_generator(options.run, options.device)
    assistant = options.load_assistant()
    with as_usage_error():
        check_precision(options.precision, model.device)
        prompt = first_tokens(tokenizer, options.prompt)
    if (notice := precision_notice(options.precision, model.device)) is not None:
        print(f"notice: {notice}", file=sys.stderr)
    shown, beams = ShownText(tokenizer, options.stop), options.num_beams > 1
    show(options.prompt)
    settings = options.options(tokenizer) | {"do_sample": not (options.greedy or beams)}
    with as_usage_error(), compute_in(options.precision):
        out = model.generate(
            prompt[None],
            options.max_new_tokens,
            eos_token_id=[] if options.ignore_eos else None,
            num_beams=options.num_beams,
            length_penalty=options.length_penalty,
            cache_implementation=options.cache_implementation,
            assistant_model=assistant,
            streamer=None if beams else shown,
            **settings,
        )
    if beams:  # which of them it will be is known in the end only
        for token in out[0, 1 if hasattr(model, "encode") else len(prompt) :]:
            shown([token])
    shown.finish()
    return 0


def first_tokens(tokenizer, prompt: str):
    """The ids of a prompt; without one, the end-of-text token, which documents follow, or a new line."""
    if prompt:
        return tokenizer.encode(prompt)
    if tokenizer.eos_token_id is not None:
        import numpy as np

        return np.array([tokenizer.eos_token_id])
    return tokenizer.encode("\n")
