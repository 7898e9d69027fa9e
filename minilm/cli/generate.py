"""`minilm generate`: text from a trained model, shown as it comes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError, as_usage_error
from .parsing import parse

__all__ = ["first_tokens", "fresh_seed", "run", "show"]


@dataclass
class GenerateArguments:
    """What `minilm generate` takes."""

    run: str  # a run folder, one of its checkpoints, a model's folder in Hugging Face form, or a GGUF file
    prompt: str = ""  # what the text begins with
    max_new_tokens: int = 200  # tokens to write
    greedy: bool = False  # always the likeliest token, no sampling
    temperature: float = 0.8  # below 1: likelier tokens; above: more surprising ones
    top_k: int | None = None  # sample from the k likeliest tokens only
    top_p: float | None = None  # sample from the fewest tokens that together have this probability
    min_p: float | None = None  # sample from tokens at least this share as likely as the likeliest
    repetition_penalty: float = 1.0  # above 1: tokens that are there already become less likely
    stop: tuple[str, ...] = ()  # texts at which to stop
    ignore_eos: bool = False  # go on past the end of a text
    seed: int | None = None  # of the sampling; None: another text each time
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"  # what to compute in; tf32 on a GPU only


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(
        GenerateArguments,
        arguments,
        "generate",
        "Write text with a trained model, shown as it comes.",
        positional="required",
    )
    if options.seed is not None and options.seed < 0:
        raise UsageError(f"seed is {options.seed}; expected 0 or more")

    from minilm.autograd import check_precision, compute_in, precision_notice
    from minilm.tokenization import StreamDecoder

    from .loading import load_generator

    model, tokenizer = load_generator(options.run, options.device)
    with as_usage_error():
        check_precision(options.precision, model.device)
        prompt = first_tokens(tokenizer, options.prompt)
    if (notice := precision_notice(options.precision, model.device)) is not None:
        print(f"notice: {notice}", file=sys.stderr)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that lacks a character shows a question mark for it
        sys.stdout.reconfigure(errors="replace")
    decoder = StreamDecoder(tokenizer, skip_special_tokens=True)
    show(options.prompt)
    with as_usage_error(), compute_in(options.precision):
        model.generate(
            prompt[None],
            options.max_new_tokens,
            do_sample=not options.greedy,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            stop_strings=options.stop or None,
            eos_token_id=[] if options.ignore_eos else None,
            seed=fresh_seed() if options.seed is None else options.seed,
            streamer=lambda tokens: show(decoder.push(int(tokens[0]))),
            tokenizer=tokenizer,
        )
    show(decoder.finish() + "\n")
    return 0


def first_tokens(tokenizer, prompt: str):
    """The ids of a prompt; without one, the end-of-text token, which documents follow, or a new line."""
    if prompt:
        return tokenizer.encode(prompt)
    if tokenizer.eos_token_id is not None:
        import numpy as np

        return np.array([tokenizer.eos_token_id])
    return tokenizer.encode("\n")


def show(text: str) -> None:
    """Prints at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def fresh_seed() -> int:
    """A seed that nobody chose."""
    import secrets

    return secrets.randbits(32)
