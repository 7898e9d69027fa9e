"""The options of `generate`, what a model's config adds to them, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import partial
from typing import Self

import numpy as np

from minilm import backend

from .processors import LogitsProcessors, ban_ngrams, ban_until, force, require
from .sampling import SamplingOptions, Streams

__all__ = ["BeamOptions", "GenerationConfig", "check_names"]

_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
_CACHES = ("dynamic", "static", "sliding_window")


@dataclass(frozen=True)
class BeamOptions:
    """How many sequences are followed, and when that ends; names and meaning are transformers'.

    The score of a finished sequence is the sum of its new tokens' log probabilities over their number to the power
    `length_penalty` (above 0 it favours long ones). `early_stopping` True ends a search when `num_beams` sequences are
    finished; False when those still followed, as long as they are now, can't beat the worst of them; "never" when they
    can't either at the length that would suit them best. `num_return_sequences` of the finished are returned.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        require(self.num_beams >= 1, f"num_beams must be at least 1; got {self.num_beams}")
        require(
            self.early_stopping in (True, False, "never"),
            f'early_stopping is True, False or "never"; got {self.early_stopping!r}',
        )
        require(
            self.num_return_sequences >= 1, f"num_return_sequences must be at least 1; got {self.num_return_sequences}"
        )
        require(
            self.num_beams == 1 or self.num_return_sequences <= self.num_beams,
            f"num_return_sequences ({self.num_return_sequences}) can't be more than num_beams ({self.num_beams})",
        )
        given = (self.length_penalty, self.early_stopping) != (1.0, False)
        require(self.num_beams > 1 or not given, "length_penalty and early_stopping are for beam search: set num_beams")


@dataclass(frozen=True)
class GenerationConfig(SamplingOptions, BeamOptions):
    """All options of `generate`; names and meaning are transformers'. Tokens that are None are the model's config's.

    How a token is chosen: those of SamplingOptions; of encoder-decoder models `encoder_no_repeat_ngram_size` (no n
    tokens that are in the source); no end before `min_new_tokens` new ones or `min_length` in all;
    `forced_bos_token_id` is the first new token, `forced_eos_token_id` the last that there is room for; the
    `logits_processor`s, functions (input_ids (B, T), scores (B, V)) -> scores, come before temperature and filters.
    `seed` starts the stream that is drawn from; a list has one for each row of the result, whose text then depends on
    nothing of the rows beside it; None goes on with the default stream. Several sequences: those of BeamOptions.

    Where a text ends: at `eos_token_id` (one or several; []: nowhere), where its new text holds one of `stop_strings`,
    which stay in the result, and at `max_new_tokens`. Rows that have ended are filled with `pad_token_id` (where the
    config has none: the first eos, else 0). An encoder-decoder model's text begins with `decoder_start_token_id`.

    How it is computed, which changes no token: without a cache (`use_cache` False), or with one that is "dynamic",
    "static" (all its room is taken at once; on a GPU single tokens are launched as one graph, see captured.py) or
    "sliding_window" (`cache_implementation`); the prompt read in pieces of `prefill_chunk_size`. One text is written
    faster where several tokens are guessed and looked at together (see speculative.py): `num_assistant_tokens` by an
    assistant model, or `prompt_lookup_num_tokens` that came after the last ones before. Greedy tokens are the same,
    drawn ones follow the same law.

    `return_dict_in_generate` returns an object with `sequences` and what the `output_...` options ask for (output.py).

    >>> GenerationConfig(max_new_tokens=20, do_sample=True, top_p=0.9).top_p
    0.9
    >>> GenerationConfig(num_beams=2, do_sample=True)
    Traceback (most recent call last):
    ...
    ValueError: beam search takes the likeliest, it draws nothing: leave do_sample or num_beams
    """

    max_new_tokens: int = 100
    encoder_no_repeat_ngram_size: int = 0
    min_length: int = 0
    min_new_tokens: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    logits_processor: Sequence[Callable] = ()
    seed: int | Sequence[int] | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    stop_strings: str | Sequence[str] | None = None
    use_cache: bool = True
    cache_implementation: str = "dynamic"
    prefill_chunk_size: int | None = None
    prompt_lookup_num_tokens: int | None = None
    num_assistant_tokens: int = 5
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_logits: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens"):  # which a dict without a name becomes
            if isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} is a dict; if it holds options, give them by name: **options")
        SamplingOptions.__post_init__(self)
        BeamOptions.__post_init__(self)
        for name in ("max_new_tokens", "min_new_tokens", "min_length", "encoder_no_repeat_ngram_size"):
            require(getattr(self, name) >= 0, f"{name} must not be negative; got {getattr(self, name)}")
        require(
            self.min_new_tokens <= self.max_new_tokens,
            f"min_new_tokens ({self.min_new_tokens}) can't be more than max_new_tokens ({self.max_new_tokens})",
        )
        require(
            not callable(self.logits_processor), "logits_processor is a list of functions: put this one into a list"
        )
        require(
            self.num_beams > 1 or self.do_sample or self.num_return_sequences == 1,
            "greedy decoding finds one sequence: for more num_return_sequences set num_beams or do_sample",
        )
        require(
            self.num_beams == 1 or not self.do_sample,
            "beam search takes the likeliest, it draws nothing: leave do_sample or num_beams",
        )
        require(
            self.cache_implementation in _CACHES,
            f"cache_implementation is one of {', '.join(_CACHES)}; got {self.cache_implementation!r}",
        )
        require(
            self.use_cache or self.cache_implementation == "dynamic",
            f"use_cache=False has no cache to be {self.cache_implementation}: leave one of them",
        )
        for name in ("prefill_chunk_size", "prompt_lookup_num_tokens", "num_assistant_tokens"):
            given = getattr(self, name)
            require(given is None or given >= 1, f"{name} must be at least 1; got {given}")
        require(
            self.use_cache or self.prefill_chunk_size is None,
            "a prompt can be read in pieces with a cache only: leave prefill_chunk_size or use_cache=False",
        )
        asked = [name for name in _OUTPUTS if getattr(self, name)]
        require(
            self.return_dict_in_generate or not asked,
            f"{', '.join(asked)} is part of the object that return_dict_in_generate=True returns: set that as well",
        )

    def for_model(self, model) -> Self:
        """These options with the tokens of the model's config where None is given: lists, or one token."""
        has_encoder = hasattr(model, "encode")
        for name, given in (
            ("decoder_start_token_id", self.decoder_start_token_id is not None),
            ("encoder_no_repeat_ngram_size", self.encoder_no_repeat_ngram_size),
        ):
            require(has_encoder or not given, f"{name} is for models with an encoder; leave it out")
        config = getattr(model, "config", None)

        def tokens(name: str) -> list[int]:
            given = getattr(self, name)
            given = getattr(config, name, None) if given is None else given
            if given is None:
                return []
            return [int(given)] if isinstance(given, (int, np.integer)) else [int(token) for token in given]

        ends, start = tokens("eos_token_id"), tokens("decoder_start_token_id")
        if has_encoder:
            require(len(start) == 1, f"decoder_start_token_id is the token that starts the output; got {start or None}")
            require(
                self.max_new_tokens <= model.max_length,
                f"the model writes {model.max_length} tokens at most; got max_new_tokens={self.max_new_tokens}",
            )
        words = getattr(config, "bad_words_ids", None) if self.bad_words_ids is None else self.bad_words_ids
        words = [word for word in words or () if word not in [[end] for end in ends]]  # a text may always end
        forced = {name: tokens(name) for name in ("forced_bos_token_id", "forced_eos_token_id")}
        size = getattr(config, "target_vocab_size", getattr(config, "vocab_size", None))
        for name, asked in {**forced, "bad_words_ids": [token for word in words for token in word]}.items():
            odd = next((token for token in asked if size is not None and not 0 <= token < size), None)
            require(odd is None, f"{name} has the token {odd}; the model's tokens end before {size}")
        return replace(
            self,
            eos_token_id=ends,
            pad_token_id=(tokens("pad_token_id") + ends + [0])[0],
            decoder_start_token_id=start[0] if has_encoder else None,
            bad_words_ids=words,
            **forced,
        )

    def processors(self, prompt: int, source: Sequence[np.ndarray] | None = None) -> LogitsProcessors:
        """What is done to the scores after a prompt of so many tokens; `source` are the encoder's, without padding.

        For options that `for_model` returned.
        """
        first, functions, ends = self.penalties(), [], self.eos_token_id
        if self.encoder_no_repeat_ngram_size:
            first.append(partial(ban_ngrams, n=self.encoder_no_repeat_ngram_size, source=source))
        for length in (self.min_length, prompt + self.min_new_tokens):
            if ends and length > prompt:
                functions.append(partial(ban_until, length=length, tokens=ends))
        if self.forced_bos_token_id:
            functions.append(partial(force, length=prompt, tokens=self.forced_bos_token_id))
        if self.forced_eos_token_id:
            functions.append(partial(force, length=prompt + self.max_new_tokens - 1, tokens=self.forced_eos_token_id))
        return LogitsProcessors(first, [*functions, *self.logits_processor], self.filters())

    def streams(self, rows: int) -> backend.Generator | Streams:
        """Where the rows of the result draw their tokens from."""
        if self.seed is None:
            return backend.default_generator
        if isinstance(self.seed, (int, np.integer)):
            return backend.Generator(int(self.seed))
        require(len(self.seed) == rows, f"the result has {rows} rows; got {len(self.seed)} seeds, one a row is needed")
        return Streams(self.seed)


def check_names(options: dict) -> None:
    """TypeError for an option that `generate` does not have, with the one that may be meant."""
    known = [field.name for field in fields(GenerationConfig)]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known))}"
            raise TypeError(f"generate has no option {name!r}; {meant}")
