"""A model as decoding sees it: for the tokens so far, what comes next."""

from __future__ import annotations

import numpy as np
from minilm_kernels.checks import wide

from minilm import backend
from minilm.autograd import Tensor

from .captured import CapturedDecoding
from .options import GenerationConfig
from .output import Record
from .prefix import PrefixCache

__all__ = ["Decoder"]


class Decoder:
    """The part of the tokens that the model looks at, and what it keeps of it from one step to the next.

    `length` is the number of tokens that there can be in the end. An encoder-decoder model (one with `encode`) reads
    `source` (B, S), with its mask, once, here. With a static cache on a GPU, `captured` launches single tokens.
    """

    captured_on = ("cuda",)

    def __init__(
        self,
        model,
        config: GenerationConfig,
        length: int,
        record: Record | None = None,
        source: np.ndarray | None = None,
        source_mask: np.ndarray | None = None,
        prefix: PrefixCache | None = None,
    ) -> None:
        self.model, self.config, self.record, self.prefix = model, config, record, prefix
        self.capacity = min(length, model.max_length)
        self.start, self.cache = 0, None
        self.encoded, self.sources, self.source_mask = None, None, source_mask
        self.wanted = {} if record is None else {name: True for name, on in record.wanted.items() if on}
        self.vocabulary = 0  # that the last logits were for
        self.captured: CapturedDecoding | None = None
        if config.cache_implementation == "static" and source is None and model.device in self.captured_on:
            moved = "beams move the rows of the cache at each step" if config.num_beams > 1 else None
            watched = "hidden states or attention weights are asked for" if self.wanted else None
            self.captured = CapturedDecoding(model, moved or watched)
        if source is not None:
            out = model.encode(source, source_mask, **self.wanted)
            self.encoded, self.sources = out.last_hidden_state, np.arange(len(source))
            if record is not None:
                record.encoder(out)

    def next_logits(self, ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Logits (B, V), float32 or float64, for the token after `ids` (B, T), where `mask` (B, T) is 0 for padding."""
        return self.last_logits(ids, mask, 1)[:, 0]

    def last_logits(self, ids: np.ndarray, mask: np.ndarray | None, n: int) -> np.ndarray:
        """Logits (B, n, V), in float32 or float64, for the tokens after each of the last n, which are new.

        Raises FloatingPointError for logits with NaN, from which nothing can be chosen.
        """
        limit = self.model.max_length
        if ids.shape[1] - self.start > limit:
            step = max(limit // 2, 1)
            self.start += -(-(ids.shape[1] - self.start - limit) // step) * step
            self.cache = None
            if self.prefix is not None:
                self.prefix.forget()
                self.prefix = None
        if self.config.use_cache and self.cache is None:
            self.cache = self._new_cache(ids)
        if self.prefix is not None:
            self.prefix.follow(ids[0])
        known = self.start + (0 if self.cache is None else len(self.cache))
        chunk = self.config.prefill_chunk_size
        if chunk is not None:
            while ids.shape[1] - known > max(chunk, n):
                stop = min(known + chunk, ids.shape[1] - n)
                self._call(ids, mask, known, stop, 1)
                known = stop
        logits = None
        if self.captured is not None and ids.shape[1] - known == 1 and self.vocabulary:
            visible = None if mask is None else mask[:, self.start :]
            logits = self.captured(self.cache, ids[:, known:], self.vocabulary, visible)
        if logits is None:
            out = self._call(ids, mask, known, ids.shape[1], n)
            if self.record is not None:
                self.record.model(out)
            logits = out.logits.data
        self.vocabulary = logits.shape[2]
        logits = backend.to_numpy(logits)[:, -n:]
        logits = logits.astype(wide(logits))
        if np.isnan(logits).any():
            raise FloatingPointError("the model's logits have NaN: its weights or its training have come to grief")
        return logits

    def _call(self, ids: np.ndarray, mask: np.ndarray | None, known: int, stop: int, n: int):
        """The model's output for tokens `known` to `stop` - 1, with the last n logits."""
        new, visible = ids[:, known:stop], None if mask is None else mask[:, self.start : stop]
        settings = {"cache": self.cache, "logits_to_keep": n, **self.wanted}
        if self.encoded is None:
            return self.model(new, attention_mask=visible, **settings)
        settings["attention_mask"] = self.source_mask
        if not known:  # else the cache has taken it up
            settings["encoder_outputs"] = (self.encoded,)
        return self.model(decoder_input_ids=new, decoder_attention_mask=visible, **settings)

    def _new_cache(self, ids: np.ndarray):
        kind = self.config.cache_implementation
        if self.prefix is not None:
            return self.prefix.take(self.model, ids[0])
        if kind == "static":
            return self.model.new_cache(self.capacity, kind, len(ids))
        return self.model.new_cache() if kind == "dynamic" else self.model.new_cache(implementation=kind)

    def forget(self, length: int) -> None:
        """Takes back what the cache knows of all tokens but the first `length`."""
        if self.cache is None or self.start + len(self.cache) <= length:
            return
        if not hasattr(self.cache, "truncate"):
            kind = type(self.cache).__name__
            raise ValueError(f"guessed tokens have to be taken back, which a {kind} can't: decode without guesses")
        self.cache.truncate(length - self.start)

    def select(self, rows: np.ndarray) -> None:
        """Keeps these rows of the batch, in that order (repeats allowed)."""
        if self.cache is not None:
            self.cache.select(rows)
        if self.encoded is not None and not np.array_equal(self.sources[rows], self.sources):
            self.encoded, self.sources = Tensor(self.encoded.data[rows]), self.sources[rows]
            self.source_mask = None if self.source_mask is None else self.source_mask[rows]
