"""What decoder-only language models share around their layers: how tokens, masks and positions come in; the loss."""

from __future__ import annotations

import numpy as np

from minilm import ops
from minilm.backend import array_module, to_numpy
from minilm.generation import GenerationMixin
from minilm.nn.attention import attention_mask_arguments
from minilm.nn.cache import KeyValueCache, SlidingWindowCache
from minilm.nn.static_cache import StaticCache

from .output import CausalLMOutput
from .pretrained import PretrainedModel

__all__ = ["CausalLM"]


class CausalLM(GenerationMixin, PretrainedModel):
    """A model that predicts the next token: the base of GPT2 and Llama, and of one of your own.

    A family defines `n_layer`, `max_length` and `forward`, with GPT2's arguments as far as it has use for them;
    `_inputs` and `_output` do what lies around the layers. It then has `generate`, `save_pretrained` and
    `from_pretrained`, and `minilm.evaluation` checks it. docs/model.md has one in full.
    """

    @property
    def n_layer(self) -> int:
        """How many layers keep keys and values."""
        raise NotImplementedError(f"{type(self).__name__} has to define n_layer")

    @property
    def max_length(self) -> int:
        """The most tokens, cached ones included, that the model can look at."""
        raise NotImplementedError(f"{type(self).__name__} has to define max_length")

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer, how many keys a query sees, itself included; None for all."""
        return (None,) * self.n_layer

    def new_cache(self, capacity: int = 0, implementation: str = "dynamic", rows: int = 1) -> KeyValueCache:
        """An empty cache for decoding: "dynamic" (KeyValueCache), "static" (StaticCache) or "sliding_window".

        `capacity` tokens have their room at once; a static cache has room for no more, in each of `rows` rows.
        """
        if implementation == "static":
            return StaticCache(self.n_layer, rows, capacity)
        if implementation == "sliding_window":
            if not any(self.windows):
                raise ValueError(f"no layer of this {type(self).__name__} has a sliding window; use a dynamic cache")
            return SlidingWindowCache(self.windows, capacity)
        if implementation != "dynamic":
            raise ValueError(f'a cache is "dynamic", "static" or "sliding_window"; got {implementation!r}')
        return KeyValueCache(self.n_layer, capacity)

    def _inputs(self, input_ids, attention_mask, position_ids, cache: KeyValueCache | None):
        """(ids (B, T), positions (T,) or (B, T), the mask as attention takes it), checked."""
        ids, past = self._integers(input_ids), 0 if cache is None else len(cache)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"input_ids must be (B, T), at least one token; got shape {ids.shape}. One row: ids[None]")
        length = past + ids.shape[1]
        attention_mask = self._integers(attention_mask)
        mask = attention_mask_arguments(attention_mask, len(ids), length, self.device)
        if cache is not None and cache.ragged:
            if attention_mask is not None:
                raise ValueError("the cache's rows differ in length, and that says what is padding: no attention_mask")
            if position_ids is None:
                position_ids = cache.positions(ids.shape[1])
        if position_ids is None:
            return ids, self._positions(ids, past, length, attention_mask), mask
        position_ids = self._integers(position_ids)
        if position_ids.shape == (1, ids.shape[1]):
            position_ids = position_ids[0]
        if position_ids.shape not in (ids.shape, ids.shape[1:]):
            raise ValueError(f"position_ids must be {ids.shape[1:]} or {ids.shape}; got {position_ids.shape}")
        return ids, position_ids, mask

    def _positions(self, input_ids, past: int, length: int, attention_mask):
        """0, 1, 2, ... for each row's real tokens, so that padding on the left shifts nothing."""
        if length > self.max_length:
            raise ValueError(f"{length} tokens are more than the model's max_length, {self.max_length}; give it fewer")
        xp = array_module(input_ids)
        if attention_mask is None:
            return xp.arange(past, length)
        return xp.maximum(xp.cumsum(attention_mask != 0, axis=1) - 1, 0)[:, past:]

    def _output(self, x, head, targets, labels, logits_to_keep: int, hidden_states=None, attentions=None):
        """The result for the last hidden states x (B, T, C) and the output layer `head`, which makes them logits."""
        if logits_to_keep < 0:
            raise ValueError(
                f"logits_to_keep is how many of the last logits to compute, or 0 for all; got {logits_to_keep}"
            )
        if targets is not None and labels is not None:
            raise ValueError("give targets, aligned with the logits, or labels, aligned with input_ids; not both")
        if logits_to_keep:
            x = x[:, -logits_to_keep:]
        logits, loss = head(x), None
        if targets is not None:
            loss = ops.cross_entropy(logits, self._integers(targets))
        elif labels is not None:
            loss = ops.cross_entropy(logits[:, :-1], self._integers(labels)[:, 1:])
        return CausalLMOutput(logits, loss, hidden_states, attentions)

    def _without_copy(self, weights: dict, table: str) -> dict:
        """The weights of a file, where the head is tied without the copy of the embedding `table` that it may hold.

        Raises ValueError for one that differs.
        """
        if not self.config.tie_word_embeddings or "lm_head.weight" not in weights:
            return weights
        weights = dict(weights)
        head = weights.pop("lm_head.weight")
        if not np.array_equal(to_numpy(weights.setdefault(table, head)), to_numpy(head)):
            raise ValueError(
                f"the file's lm_head.weight differs from its {table}, but tie_word_embeddings is true in its config; "
                "make that false"
            )
        return weights
