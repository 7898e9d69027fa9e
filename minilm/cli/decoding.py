"""What `minilm generate` and `minilm chat` share: the options of decoding, and text shown as it comes."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from .errors import UsageError

__all__ = ["DRAWING", "DecodingArguments", "ShownText", "show"]

DRAWING = "temperature", "top_k", "top_p", "min_p", "typical_p"  # what only matters where tokens are drawn

_AS_THEY_ARE = (
    "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
    "no_repeat_ngram_size", "prefill_chunk_size", "prompt_lookup_num_tokens", "num_assistant_tokens",
)  # fmt: skip


@dataclass(kw_only=True)
class DecodingArguments:
    """How tokens are chosen, and how that is computed."""

    max_new_tokens: int = 200  # tokens to write, at most
    min_new_tokens: int = 0  # no end before so many
    greedy: bool = False  # always the likeliest token, no sampling
    temperature: float = 0.8  # below 1: likelier tokens; above: more surprising ones
    top_k: int | None = None  # sample from the k likeliest tokens only
    top_p: float | None = None  # sample from the fewest tokens that together have this probability
    min_p: float | None = None  # sample from tokens at least this share as likely as the likeliest
    typical_p: float | None = None  # sample from the most typical tokens that together have this probability
    repetition_penalty: float = 1.0  # above 1: tokens that are there already become less likely
    no_repeat_ngram_size: int = 0  # so many tokens never come twice in the same order; 0: they may
    stop: tuple[str, ...] = ()  # texts at which to stop; they are not shown
    seed: int | None = None  # of the sampling; None: another text each time
    prefill_chunk_size: int | None = None  # tokens of the prompt that are read at once; None: all
    prompt_lookup_num_tokens: int | None = None  # guess so many tokens: those that came after the last ones before
    assistant_model: str | None = None  # a small model with the same tokens, which guesses for the large one
    num_assistant_tokens: int = 5  # how many it guesses at a time
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute

    def options(self, tokenizer, turn: int = 0) -> dict:
        """What `generate` takes of these, for an answer that so many came before."""
        return {name: getattr(self, name) for name in _AS_THEY_ARE} | {
            "do_sample": not self.greedy,
            "stop_strings": self.stop or None,
            "tokenizer": tokenizer,
            "seed": secrets.randbits(32) if self.seed is None else self.seed + turn,
        }

    def check(self) -> None:
        """Raises UsageError for what can be seen to be wrong before a model is loaded."""
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; expected 0 or more")
        usual = {field.name: field.default for field in fields(self)}
        for why, names in self.without_effect():
            for name in names:
                if getattr(self, name) != usual[name]:
                    raise UsageError(f"--{name.replace('_', '-')} has no effect: {why}")

    def without_effect(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Why some options change nothing beside the others, and which."""
        if self.greedy:
            yield "--greedy takes the likeliest token; leave one of the two out", DRAWING
        if self.assistant_model is None:
            yield "it is for --assistant-model, which is not given", ("num_assistant_tokens",)

    def load_assistant(self):
        """The model that guesses, or None."""
        if self.assistant_model is None:
            return None
        from .loading import load_generator

        return load_generator(self.assistant_model, self.device)[0]


class ShownText:
    """A streamer that prints text as it becomes certain: no half character, no beginning of a stop string."""

    def __init__(self, tokenizer, stops: Sequence[str] = ()) -> None:
        from minilm.tokenization import StopFinder, StreamDecoder

        self.decoder, self.finder = StreamDecoder(tokenizer, skip_special_tokens=True), StopFinder(stops)
        self.text = ""
        if hasattr(sys.stdout, "reconfigure"):  # a terminal that lacks a character shows a question mark for it
            sys.stdout.reconfigure(errors="replace")

    def __call__(self, tokens) -> None:
        """Takes up the next token, the first of `tokens`."""
        self._show(self.finder.push(self.decoder.push(int(tokens[0]))))

    def finish(self) -> str:
        """Prints what was held back, and a new line; returns all of the text."""
        self._show(self.finder.push(self.decoder.finish()) + self.finder.finish())
        show("\n")
        return self.text

    def _show(self, text: str) -> None:
        self.text += text
        show(text)


def show(text: str) -> None:
    """Prints at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
