"""`generate`: tokens one after the other, each chosen from what the model says comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minilm import backend
from minilm.autograd import no_grad
from minilm.nn import eval_mode

from .beam import BeamOptions, beam_search
from .decoder import Decoder
from .sampling import SamplingOptions, force, require
from .stopping import StopStrings

__all__ = ["GenerationMixin", "generate"]


def generate(
    model,
    input_ids,
    max_new_tokens: int = 100,
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    bad_words_ids: Sequence[Sequence[int]] | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    num_return_sequences: int = 1,
    stop_strings: str | Sequence[str] | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    decoder_start_token_id: int | None = None,
    forced_bos_token_id: int | None = None,
    forced_eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
    streamer: Callable[[np.ndarray], None] | None = None,
    tokenizer=None,
    attention_mask=None,
    use_cache: bool = True,
) -> np.ndarray:
    """`input_ids` (B, T) and up to `max_new_tokens` tokens that the model puts after them: int64 (B, T + new).

    Of an encoder-decoder model, which reads `input_ids`, the result is what it writes: `decoder_start_token_id`, then
    up to `max_new_tokens` tokens.

    Greedy unless `do_sample`; with `num_beams` above 1 the likeliest of several sequences that are followed at once
    (see beam.py for its options). `num_return_sequences` n gives n rows for each prompt, sampled or of the best beams.
    A row ends at `eos_token_id` (one or several; []: nowhere) or where its new text holds one of `stop_strings` (which
    need the `tokenizer`, and stay in the result); ended rows are filled with `pad_token_id` (where the config has none:
    the first eos, else 0). None of the `bad_words_ids`, lists of tokens, comes. `forced_bos_token_id` is the first new
    token, `forced_eos_token_id` the last that there is room for. What is None of all these is the config's. `streamer`
    is called with each step's tokens (B,). `seed` None goes on with the default stream. Prompts of unequal length are
    padded, on the left if new tokens come after them, with an `attention_mask` (B, T) of 0 for the padding.

    Past the model's `max_length` the oldest tokens are dropped, half a window at a time and padding included, so that
    the rest is computed anew only once in a while. Tokens with and without the cache are the same. The model is any
    Module with `max_length`, `new_cache()`, and GPT2's forward arguments or, with `encode`, BART's. Raises ValueError
    for bad options.

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    >>> generate(model, np.array([[1, 2, 3]]), max_new_tokens=5, do_sample=True, top_p=0.9, seed=0).shape
    (1, 8)
    """
    ends = _tokens(model, "eos_token_id", eos_token_id)
    words = _from_config(model, "bad_words_ids", bad_words_ids) or ()
    words = [word for word in words if word not in [[end] for end in ends]]  # a text may always end
    options = SamplingOptions(do_sample, temperature, top_k, top_p, min_p, repetition_penalty, words)
    beams = BeamOptions(num_beams, length_penalty, early_stopping, num_return_sequences)
    require(
        num_beams > 1 or do_sample or num_return_sequences == 1,
        "greedy decoding finds one sequence: for more num_return_sequences set num_beams or do_sample",
    )
    require(
        num_beams == 1 or not do_sample,
        "beam search takes the likeliest, it draws nothing: leave do_sample or num_beams",
    )
    require(num_beams == 1 or streamer is None, "a streamer can't follow beams, whose tokens change: leave one of them")
    ids = _checked_prompt(input_ids, max_new_tokens)
    mask = _checked_mask(attention_mask, ids)
    require(
        hasattr(model, "encode") or decoder_start_token_id is None,
        "decoder_start_token_id is for models with an encoder; leave it out",
    )
    start = _tokens(model, "decoder_start_token_id", decoder_start_token_id)
    first = _tokens(model, "forced_bos_token_id", forced_bos_token_id)
    last = _tokens(model, "forced_eos_token_id", forced_eos_token_id)
    padding = (_tokens(model, "pad_token_id", pad_token_id) + ends + [0])[0]
    stops = StopStrings(tokenizer, stop_strings)
    stream = backend.default_generator if seed is None else backend.Generator(seed)
    with eval_mode(model), no_grad():
        decoder, ids, mask = _started(model, ids, mask, start, max_new_tokens, use_cache)
        prompt = ids.shape[1]

        def score(scores: np.ndarray, ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
            """Logits or log probabilities (B, V) of what comes after `ids`, penalised, filtered and forced."""
            step = ids.shape[1] - prompt
            if last and step == max_new_tokens - 1:
                return force(scores, last)
            if first and step == 0:
                return force(scores, first)
            return options.scores(scores, [row if mask is None else row[mask[b] != 0] for b, row in enumerate(ids)])

        def ended(ids: np.ndarray) -> np.ndarray:
            """Whether each row of `ids` (B, T) is at its end with its last token."""
            return np.isin(ids[:, -1], ends) | np.array([stops.ends(row[prompt:]) for row in ids])

        if num_beams > 1:
            return beam_search(decoder, ids, mask, max_new_tokens, beams, score, ended, len(ends), padding)
        if num_return_sequences > 1:
            rows = np.repeat(np.arange(len(ids)), num_return_sequences)
            decoder.select(rows)
            ids, mask = ids[rows], None if mask is None else mask[rows]
        running = np.ones(len(ids), bool)
        for _ in range(max_new_tokens):
            scores = score(decoder.next_logits(ids, mask), ids, mask)
            token = np.where(running, options.choose(scores, stream), padding)
            ids = np.concatenate([ids, token[:, None]], axis=1)
            mask = None if mask is None else np.concatenate([mask, np.ones((len(ids), 1), mask.dtype)], axis=1)
            if streamer is not None:
                streamer(token)
            running &= ~ended(ids)
            if not running.any():
                break
    return ids


class GenerationMixin:
    """Gives a language model its `generate` method."""

    def generate(self, input_ids, max_new_tokens: int = 100, **options) -> np.ndarray:
        """`minilm.generation.generate(self, input_ids, max_new_tokens, ...)`: see there for the options."""
        return generate(self, input_ids, max_new_tokens, **options)


def _checked_prompt(input_ids, max_new_tokens: int) -> np.ndarray:
    ids = backend.to_numpy(getattr(input_ids, "_data", input_ids))
    require(ids.ndim == 2, f"input_ids must be (B, T); got shape {ids.shape}. Add a batch axis: ids[None]")
    require(ids.shape[1] > 0, "the prompt is empty: give at least one token (the end-of-text token, say)")
    require(ids.dtype.kind in "iu", f"input_ids must be integers; got {ids.dtype}")
    require(max_new_tokens >= 0, f"max_new_tokens must not be negative; got {max_new_tokens}")
    return ids.astype(np.int64)


def _checked_mask(attention_mask, ids: np.ndarray) -> np.ndarray | None:
    if attention_mask is None:
        return None
    mask = backend.to_numpy(getattr(attention_mask, "_data", attention_mask))
    require(mask.shape == ids.shape, f"attention_mask must have input_ids' shape, {ids.shape}; got {mask.shape}")
    return mask


def _started(model, ids, mask, start: list[int], max_new_tokens: int, use_cache: bool):
    """The decoder at work, the tokens (B, T) that new ones come after, and their mask."""
    if not hasattr(model, "encode"):
        bad = "a row of attention_mask ends in 0: pad prompts on the left, new text comes right"
        require(mask is None or bool(mask[:, -1].all()), bad)
        return Decoder(model, use_cache), ids, mask
    require(len(start) == 1, f"decoder_start_token_id is the token that starts the output; got {start or None}")
    require(
        max_new_tokens <= model.max_length,
        f"the model writes {model.max_length} tokens at most; got max_new_tokens={max_new_tokens}",
    )
    return Decoder(model, use_cache, ids, mask), np.full((len(ids), 1), start[0]), None


def _from_config(model, name: str, given):
    """What is given or, for None, what the model's config says, if it says anything."""
    return given if given is not None else getattr(getattr(model, "config", None), name, None)


def _tokens(model, name: str, given) -> list[int]:
    """A token or several, as a list: those given or, for None, those of the model's config."""
    given = _from_config(model, name, given)
    if given is None:
        return []
    return [int(given)] if isinstance(given, (int, np.integer)) else [int(token) for token in given]
