"""`generate`: tokens one after the other, each drawn from what the model says comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minilm import backend
from minilm.autograd import no_grad
from minilm.nn import eval_mode

from .sampling import min_p_filter, penalize_repetition, sample, top_k_filter, top_p_filter
from .stopping import StopStrings

__all__ = ["GenerationMixin", "SamplingOptions", "generate"]


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen; names, meaning and order are transformers'.

    The repetition penalty comes first and holds for greedy decoding as well; then, for sampling, the temperature, top
    k, top p and min p, each on what the one before it left (none of them changes which token is the likeliest).
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _require(
            self.temperature > 0,
            f"temperature must be above 0 (for greedy decoding: do_sample=False); got {self.temperature}",
        )
        _require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, or None for all; got {self.top_k}")
        _require(self.top_p is None or 0 < self.top_p <= 1, f"top_p must lie in (0, 1]; got {self.top_p}")
        _require(self.min_p is None or 0 <= self.min_p <= 1, f"min_p must lie in [0, 1]; got {self.min_p}")
        _require(self.repetition_penalty > 0, f"repetition_penalty must be above 0; got {self.repetition_penalty}")

    def choose(self, logits: np.ndarray, seen: list[np.ndarray], stream: backend.Generator) -> np.ndarray:
        """The next token (B,) for logits (B, V), given the tokens `seen` so far in each row.

        Raises FloatingPointError for logits with NaN, from which nothing can be drawn.
        """
        if np.isnan(logits).any():
            raise FloatingPointError("the model's logits have NaN: its weights or its training have come to grief")
        scores = self.scores(logits, seen)
        return sample(scores, stream.uniform((len(scores),), dtype="float64")) if self.do_sample else scores.argmax(-1)

    def scores(self, logits: np.ndarray, seen: list[np.ndarray]) -> np.ndarray:
        """The logits (B, V) after the penalty and, for sampling, the temperature and the filters."""
        if self.repetition_penalty != 1:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if not self.do_sample:
            return logits
        logits = logits / self.temperature
        if self.top_k is not None:
            logits = top_k_filter(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            logits = top_p_filter(logits, self.top_p)
        if self.min_p:
            logits = min_p_filter(logits, self.min_p)
        return logits


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
    stop_strings: str | Sequence[str] | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    seed: int | None = None,
    streamer: Callable[[np.ndarray], None] | None = None,
    tokenizer=None,
    attention_mask=None,
    use_cache: bool = True,
) -> np.ndarray:
    """`input_ids` (B, T) and up to `max_new_tokens` tokens that the model puts after them: int64 (B, T + new).

    Greedy unless `do_sample`. A row ends at `eos_token_id` (one or several; None: the config's; []: nowhere) or where
    its new text holds one of `stop_strings` (which need the `tokenizer`, and stay in the result); ended rows are
    filled with `pad_token_id` (None: the first eos, else 0). `streamer` is called with each step's tokens (B,).
    `seed` None goes on with the default stream. Prompts of unequal length are padded on the left, with an
    `attention_mask` (B, T) of 0 for the padding.

    Past the model's `max_length` the oldest tokens are dropped, half a window at a time and padding included, so that
    the rest is computed anew only once in a while. Tokens with and without the cache are the same. The model is any
    Module with `max_length`, `new_cache()`, and GPT2's forward arguments. Raises ValueError for bad options.

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    >>> generate(model, np.array([[1, 2, 3]]), max_new_tokens=5, do_sample=True, top_p=0.9, seed=0).shape
    (1, 8)
    """
    options = SamplingOptions(do_sample, temperature, top_k, top_p, min_p, repetition_penalty)
    ids = _checked_prompt(input_ids, max_new_tokens)
    mask = _checked_mask(attention_mask, ids)
    ends = _end_tokens(model, eos_token_id)
    stops = StopStrings(tokenizer, stop_strings)
    stream = backend.default_generator if seed is None else backend.Generator(seed)
    padding = pad_token_id if pad_token_id is not None else (ends[0] if ends else 0)
    running = np.ones(len(ids), bool)
    prompt = ids.shape[1]
    window = _Window(model, use_cache)
    with eval_mode(model), no_grad():
        for _ in range(max_new_tokens):
            seen = [row if mask is None else row[mask[b] != 0] for b, row in enumerate(ids)]
            token = options.choose(window.next_logits(ids, mask), seen, stream)
            token = np.where(running, token, padding)
            ids = np.concatenate([ids, token[:, None]], axis=1)
            if mask is not None:
                mask = np.concatenate([mask, np.ones((len(ids), 1), mask.dtype)], axis=1)
            if streamer is not None:
                streamer(token)
            running &= ~np.isin(token, ends)
            running &= [go_on and not stops.ends(row[prompt:]) for go_on, row in zip(running, ids)]
            if not running.any():
                break
    return ids


class GenerationMixin:
    """Gives a language model its `generate` method."""

    def generate(self, input_ids, max_new_tokens: int = 100, **options) -> np.ndarray:
        """`minilm.generation.generate(self, input_ids, max_new_tokens, ...)`: see there for the options."""
        return generate(self, input_ids, max_new_tokens, **options)


class _Window:
    """The part of the tokens that the model looks at, and the cache of what it has seen of it."""

    def __init__(self, model, use_cache: bool) -> None:
        self.model, self.use_cache = model, use_cache
        self.start, self.cache = 0, None

    def next_logits(self, ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Logits (B, V) for the token after `ids`."""
        limit = self.model.max_length
        if ids.shape[1] - self.start > limit:
            step = max(limit // 2, 1)
            self.start += -(-(ids.shape[1] - self.start - limit) // step) * step
            self.cache = None
        if self.use_cache and self.cache is None:
            self.cache = self.model.new_cache()
        known = self.start + (0 if self.cache is None else len(self.cache))
        visible = None if mask is None else mask[:, self.start :]
        out = self.model(ids[:, known:], attention_mask=visible, cache=self.cache, logits_to_keep=1)
        return backend.to_numpy(out.logits.data)[:, -1].astype(np.float64)


def _checked_prompt(input_ids, max_new_tokens: int) -> np.ndarray:
    ids = backend.to_numpy(getattr(input_ids, "_data", input_ids))
    _require(ids.ndim == 2, f"input_ids must be (B, T); got shape {ids.shape}. Add a batch axis: ids[None]")
    _require(ids.shape[1] > 0, "the prompt is empty: give at least one token (the end-of-text token, say)")
    _require(ids.dtype.kind in "iu", f"input_ids must be integers; got {ids.dtype}")
    _require(max_new_tokens >= 0, f"max_new_tokens must not be negative; got {max_new_tokens}")
    return ids.astype(np.int64)


def _checked_mask(attention_mask, ids: np.ndarray) -> np.ndarray | None:
    if attention_mask is None:
        return None
    mask = backend.to_numpy(getattr(attention_mask, "_data", attention_mask))
    _require(mask.shape == ids.shape, f"attention_mask must have input_ids' shape, {ids.shape}; got {mask.shape}")
    _require(mask[:, -1].all(), "a row of attention_mask ends in 0: pad prompts on the left, new text comes right")
    return mask


def _end_tokens(model, eos_token_id) -> list[int]:
    if eos_token_id is None:
        eos_token_id = getattr(getattr(model, "config", None), "eos_token_id", None)
    if eos_token_id is None:
        return []
    return [int(eos_token_id)] if isinstance(eos_token_id, (int, np.integer)) else [int(t) for t in eos_token_id]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
