"""`generate`: tokens one after the other, each chosen from what the model says comes next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from minilm import backend
from minilm.autograd import no_grad
from minilm.nn import eval_mode

from .beam import beam_search
from .decoder import Decoder
from .options import GenerationConfig, check_names
from .output import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput, Record
from .prefix import PrefixCache
from .processors import LogitsProcessors, require
from .speculative import DraftModel, PromptLookup, speculate
from .stopping import Ending, StopStrings

__all__ = ["GenerationMixin", "generate"]


def generate(
    model,
    input_ids,
    max_new_tokens: int = 100,
    *,
    attention_mask=None,
    tokenizer=None,
    streamer: Callable[[np.ndarray], None] | None = None,
    past_key_values: PrefixCache | None = None,
    assistant_model=None,
    **options,
) -> np.ndarray | GenerateDecoderOnlyOutput | GenerateEncoderDecoderOutput:
    """`input_ids` (B, T) and up to `max_new_tokens` tokens that the model puts after them: int64 (B, T + new).

    Of an encoder-decoder model, which reads `input_ids`, the result is what it writes: `decoder_start_token_id`, then
    up to `max_new_tokens` tokens. `options` are those of GenerationConfig (options.py), which says what each does:

    - greedy unless `do_sample`, with `temperature`, `top_k`, `top_p`, `min_p`, `typical_p` and a `seed` (or a list);
      with `num_beams` above 1 the likeliest of several sequences that are followed at once (`length_penalty`,
      `early_stopping`). `num_return_sequences` n gives n rows for each prompt, sampled or of the best beams;
    - `repetition_penalty`, `no_repeat_ngram_size`, `encoder_no_repeat_ngram_size`, `bad_words_ids`, `min_new_tokens`,
      `min_length`, `forced_bos_token_id`, `forced_eos_token_id`, and functions of yours as `logits_processor`;
    - `eos_token_id`, `pad_token_id`, `decoder_start_token_id`, `stop_strings`, which need the `tokenizer`;
    - `use_cache`, `cache_implementation`, `prefill_chunk_size`, `prompt_lookup_num_tokens`; `num_assistant_tokens` of
      an `assistant_model`, a small one with the same tokens; `return_dict_in_generate` with `output_scores`,
      `output_logits`, `output_attentions`, `output_hidden_states`.

    `past_key_values` keeps what the model makes of the tokens for the next call, which begins alike. `streamer` is
    called with each step's tokens (B,). Prompts of unequal length are padded, on the left if new tokens come after
    them, with an `attention_mask` (B, T) of 0 for the padding.

    Past the model's `max_length` the oldest tokens are dropped, half a window at a time and padding included, so that
    the rest is computed anew only once in a while. Tokens with and without the cache are the same. The model is any
    Module with `max_length`, `new_cache()`, and GPT2's forward arguments or, with `encode`, BART's. Raises ValueError
    for bad options, TypeError for unknown ones.

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    >>> generate(model, np.array([[1, 2, 3]]), max_new_tokens=5, do_sample=True, top_p=0.9, seed=0).shape
    (1, 8)
    """
    check_names(options)
    config = GenerationConfig(max_new_tokens=max_new_tokens, **options).for_model(model)
    require(
        config.num_beams == 1 or streamer is None,
        "a streamer can't follow beams, whose tokens change: leave one of them",
    )
    read = _checked_prompt(input_ids)
    read_mask = _checked_mask(attention_mask, read)
    _check_alone(model, config, read, read_mask, past_key_values, assistant_model)
    has_encoder = hasattr(model, "encode")
    record = Record(config, has_encoder) if config.return_dict_in_generate else None
    of_beams: dict = {}
    with ExitStack() as during:
        for one in (model, *([] if assistant_model is None else [assistant_model])):
            during.enter_context(eval_mode(one))
        during.enter_context(no_grad())
        decoder = _decoder(model, config, read, read_mask, record, past_key_values)
        ids, mask, source = read, read_mask, None
        if has_encoder:
            source = list(read) if mask is None else [row[real != 0] for row, real in zip(read, mask)]
            ids, mask = np.full((len(read), 1), config.decoder_start_token_id), None
        prompt = ids.shape[1]
        process = config.processors(prompt, source)
        ended = Ending(prompt, config.eos_token_id, StopStrings(tokenizer, config.stop_strings))
        if config.num_beams > 1:
            found, of_beams = beam_search(decoder, ids, mask, config, process, ended, record)
        elif assistant_model is None and config.prompt_lookup_num_tokens is None:
            found = _one_by_one(decoder, ids, mask, config, process, ended, record, streamer)
        else:
            streams = config.streams(1)
            guesser: PromptLookup | DraftModel = PromptLookup(config.prompt_lookup_num_tokens or 0)
            if assistant_model is not None:
                draft = _decoder(assistant_model, config, read, read_mask)
                guesser = DraftModel(draft, config, process, streams)
            found = speculate(decoder, guesser, ids, mask, config, process, ended, record, streamer, streams)
    return found if record is None else record.output(found, **of_beams)


def _decoder(model, config: GenerationConfig, ids, mask, record: Record | None = None, prefix=None) -> Decoder:
    """The decoder of a model that reads `ids` (B, T), or puts new tokens after them."""
    if hasattr(model, "encode"):
        return Decoder(model, config, 1 + config.max_new_tokens, record, ids, mask)
    require(
        mask is None or bool(mask[:, -1].all()),
        "a row of attention_mask ends in 0: pad prompts on the left, new text comes right",
    )
    return Decoder(model, config, ids.shape[1] + config.max_new_tokens, record, prefix=prefix)


def _one_by_one(
    decoder: Decoder,
    ids: np.ndarray,
    mask: np.ndarray | None,
    config: GenerationConfig,
    process: LogitsProcessors,
    ended: Ending,
    record: Record | None,
    streamer: Callable[[np.ndarray], None] | None,
) -> np.ndarray:
    """Greedy decoding and sampling: the tokens (B num_return_sequences, T + new)."""
    if config.num_return_sequences > 1:
        rows = np.repeat(np.arange(len(ids)), config.num_return_sequences)
        decoder.select(rows)
        ids, mask = ids[rows], None if mask is None else mask[rows]
    streams, running = config.streams(len(ids)), np.ones(len(ids), bool)
    for _ in range(config.max_new_tokens):
        logits = decoder.next_logits(ids, mask)
        scores = process(ids, logits, mask)
        if record is not None:
            record.step(logits=logits, scores=scores)
        token = np.where(running, config.choose(scores, streams), config.pad_token_id)
        ids = np.concatenate([ids, token[:, None]], axis=1)
        mask = None if mask is None else np.concatenate([mask, np.ones((len(ids), 1), mask.dtype)], axis=1)
        if streamer is not None:
            streamer(token)
        running &= ~ended(ids)
        if not running.any():
            break
    return ids


class GenerationMixin:
    """Gives a language model its `generate` method.

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> model.generate(np.array([[1, 2, 3]]), max_new_tokens=4).shape
    (1, 7)
    """

    def generate(self, input_ids, max_new_tokens: int = 100, **options):
        """`minilm.generation.generate(self, input_ids, max_new_tokens, ...)`: see there for the options."""
        return generate(self, input_ids, max_new_tokens, **options)


def _check_alone(model, config: GenerationConfig, ids, mask, past_key_values, assistant_model) -> None:
    """That the options which are for one text, decoder-only models or one cache, are given for those."""
    guesses = assistant_model is not None or config.prompt_lookup_num_tokens is not None
    one = len(ids) == config.num_beams == config.num_return_sequences == 1
    plain = config.use_cache and config.cache_implementation == "dynamic"
    has_encoder = hasattr(model, "encode")
    if guesses:
        require(one, "tokens are guessed for one text at a time: give one row of input_ids, and leave beams out")
        require(
            assistant_model is None or config.prompt_lookup_num_tokens is None,
            "assistant_model and prompt_lookup_num_tokens both guess tokens: leave one of them",
        )
        require(
            config.cache_implementation != "sliding_window",
            "guesses have to be taken back, which a sliding-window cache can't: use a dynamic one",
        )
        require(
            not (config.output_attentions or config.output_hidden_states),
            "with guessed tokens a step has several: leave output_attentions and output_hidden_states",
        )
    if assistant_model is not None:
        sizes = [getattr(getattr(each, "config", None), "vocab_size", None) for each in (model, assistant_model)]
        require(
            sizes[0] == sizes[1] and hasattr(assistant_model, "encode") == has_encoder,
            "the assistant_model must be of the model's kind and have its tokens; "
            f"{type(assistant_model).__name__} has {sizes[1]}, {type(model).__name__} {sizes[0]}",
        )
        require(
            not has_encoder or config.max_new_tokens <= assistant_model.max_length,
            f"the assistant_model writes {assistant_model.max_length} tokens at most",
        )
    if past_key_values is not None:
        require(
            one and plain and not has_encoder and (mask is None or bool(mask.all())),
            "past_key_values keeps one text of a decoder-only model, without padding, beams and other caches",
        )
    if config.prefill_chunk_size is not None:
        require(not has_encoder, "prefill_chunk_size is for decoder-only models: others write from the first token on")
        require(
            not (config.output_attentions or config.output_hidden_states),
            "attentions and hidden states of a prompt read in pieces are in pieces, too: leave prefill_chunk_size",
        )


def _checked_prompt(input_ids) -> np.ndarray:
    require(not isinstance(input_ids, str), "input_ids are tokens, and came as text: tokenizer.encode(text) makes them")
    ids = backend.to_numpy(getattr(input_ids, "_data", input_ids))
    require(ids.ndim == 2, f"input_ids must be (B, T); got shape {ids.shape}. Add a batch axis: ids[None]")
    require(ids.shape[1] > 0, "the prompt is empty: give at least one token (the end-of-text token, say)")
    require(ids.dtype.kind in "iu", f"input_ids must be integers; got {ids.dtype}")
    return ids.astype(np.int64)


def _checked_mask(attention_mask, ids: np.ndarray) -> np.ndarray | None:
    if attention_mask is None:
        return None
    mask = backend.to_numpy(getattr(attention_mask, "_data", attention_mask))
    require(mask.shape == ids.shape, f"attention_mask must have input_ids' shape, {ids.shape}; got {mask.shape}")
    return mask
