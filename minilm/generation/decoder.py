"""A model as decoding sees it: for the tokens so far, what comes next."""

from __future__ import annotations

import numpy as np

from minilm import backend
from minilm.autograd import Tensor

__all__ = ["Decoder"]


class Decoder:
    """The part of the tokens that the model looks at, and what it keeps of it from one step to the next.

    An encoder-decoder model (one with `encode`) reads `source` (B, S), with its mask, once, here.
    """

    def __init__(self, model, use_cache: bool, source: np.ndarray | None = None, source_mask=None) -> None:
        self.model, self.use_cache = model, use_cache
        self.start, self.cache = 0, None
        self.encoded = None if source is None else model.encode(source, source_mask).last_hidden_state
        self.source_mask, self.sources = source_mask, None if source is None else np.arange(len(source))

    def next_logits(self, ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Logits (B, V), in float64, for the token after `ids` (B, T), where `mask` (B, T) is 0 for padding.

        Raises FloatingPointError for logits with NaN, from which nothing can be chosen.
        """
        limit = self.model.max_length
        if ids.shape[1] - self.start > limit:
            step = max(limit // 2, 1)
            self.start += -(-(ids.shape[1] - self.start - limit) // step) * step
            self.cache = None
        if self.use_cache and self.cache is None:
            self.cache = self.model.new_cache()
        known = self.start + (0 if self.cache is None else len(self.cache))
        new, visible = ids[:, known:], None if mask is None else mask[:, self.start :]
        settings = {"cache": self.cache, "logits_to_keep": 1}
        if self.encoded is None:
            out = self.model(new, attention_mask=visible, **settings)
        else:
            settings["attention_mask"] = self.source_mask
            if not known:  # else the cache has taken it up
                settings["encoder_outputs"] = (self.encoded,)
            out = self.model(decoder_input_ids=new, decoder_attention_mask=visible, **settings)
        logits = backend.to_numpy(out.logits.data)[:, -1].astype(np.float64)
        if np.isnan(logits).any():
            raise FloatingPointError("the model's logits have NaN: its weights or its training have come to grief")
        return logits

    def select(self, rows: np.ndarray) -> None:
        """Keeps these rows of the batch, in that order (repeats allowed)."""
        if self.cache is not None:
            self.cache.select(rows)
        if self.encoded is not None and not np.array_equal(self.sources[rows], self.sources):
            self.encoded, self.sources = Tensor(self.encoded.data[rows]), self.sources[rows]
            self.source_mask = None if self.source_mask is None else self.source_mask[rows]
