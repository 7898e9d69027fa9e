"""What encoder-decoder models share around their layers: how tokens and masks come in, the loss, and the cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilm import ops
from minilm.autograd import Tensor
from minilm.backend import array_module
from minilm.generation import GenerationMixin
from minilm.nn.attention import attention_mask_arguments
from minilm.nn.cache import KeyValueCache

from .output import EncoderOutput, Seq2SeqLMOutput
from .pretrained import PretrainedModel

__all__ = ["EncoderDecoderCache", "EncoderDecoderLM", "shift_tokens_right"]


class EncoderDecoderCache(KeyValueCache):
    """A cache that also keeps each decoder layer's keys and values of what the encoder said, made once."""

    def __init__(self, n_layer: int, capacity: int = 0) -> None:
        super().__init__(n_layer, capacity)
        self._memory: list = [None] * n_layer
        self._sources = None  # for each row of the batch, which of the encoder's rows it looks at

    @property
    def memory_length(self) -> int | None:
        """How many tokens the encoder said something about; None before the first step."""
        return None if self._memory[0] is None else self._memory[0][0].shape[2]

    def memory(self, layer: int, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The keys and values (B, H, S, D) that `layer` looks at; at its first call, those that `make` returns."""
        if self._memory[layer] is None:
            k, v = make()
            if k.requires_grad or v.requires_grad:
                raise RuntimeError("a cache carries no gradients; decode under minilm.no_grad(), train without a cache")
            self._memory[layer], self._sources = (k, v), np.arange(k.shape[0])
        return self._memory[layer]

    def select(self, rows) -> None:
        """As the base class's; the encoder's part is moved only where a row comes to look at another of its rows."""
        super().select(rows)
        if self._sources is None:
            return
        sources = self._sources[rows]
        if not np.array_equal(sources, self._sources):
            self._memory = [kept and tuple(Tensor(x.data[rows]) for x in kept) for kept in self._memory]
            self._sources = sources


class EncoderDecoderLM(GenerationMixin, PretrainedModel):
    """A model that reads one text and writes another.

    A family has a config with `pad_token_id` and `decoder_start_token_id`, and defines `max_length`, `n_layer` (of the
    decoder), `project(x)` from hidden states to logits, `encoder(ids, mask, states, attentions)` and
    `decoder(ids, mask, states, attentions, memory, memory_mask, cache, cross_attentions)`: modules that return hidden
    states and add what is asked for to the lists (None: not asked for).
    """

    shifts_input_ids = False  # whether the decoder's input is made from the encoder's, where nothing else is given

    def encode(self, input_ids, attention_mask=None, *, output_hidden_states=False, output_attentions=False):
        """An EncoderOutput with the hidden states (B, S, C) for `input_ids` (B, S), to be used for several calls."""
        ids = self._token_ids(input_ids, "input_ids")
        mask = attention_mask_arguments(self._integers(attention_mask), *ids.shape, self.device)
        states, attentions = [] if output_hidden_states else None, [] if output_attentions else None
        x = self.encoder(ids, mask, states, attentions)
        return EncoderOutput(x, None, _tuple(states), _tuple(attentions))

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        labels=None,
        targets=None,
        encoder_outputs: EncoderOutput | tuple | None = None,
        cache: EncoderDecoderCache | None = None,
        logits_to_keep: int = 0,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Seq2SeqLMOutput:
        """Logits (B, T, V) for `decoder_input_ids` (B, T) after reading `input_ids` (B, S), and the loss on request.

        `labels` and `targets` (B, T) are both aligned with the logits, -100 is ignored; from `labels` the decoder's
        input is made, if it is not given, by shifting them one to the right. The masks, (B, S) and (B, past + T), are 1
        for real tokens and 0 for padding. `encoder_outputs` of `encode` stand for `input_ids`; a `cache` that was used
        before has neither beside it, and takes up the new tokens. `logits_to_keep` n > 0 computes the last n only.
        Raises ValueError for what is missing, given twice or of shapes that do not fit.
        """
        if labels is not None and targets is not None:
            raise ValueError("labels and targets say the same here: the token for each logit. Give one of them")
        if logits_to_keep < 0:
            raise ValueError(
                f"logits_to_keep is how many of the last logits to compute, or 0 for all; got {logits_to_keep}"
            )
        ids = self._decoder_ids(decoder_input_ids, labels, input_ids)
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        encoded = self._encoded(input_ids, attention_mask, encoder_outputs, cache, len(ids), wanted)
        memory = encoded.last_hidden_state
        length = cache.memory_length if memory is None else memory.shape[1]
        past = 0 if cache is None else len(cache)
        states, attentions, cross = ([] if on else None for on in (output_hidden_states, *(output_attentions,) * 2))
        x = self.decoder(
            ids,
            attention_mask_arguments(
                self._integers(decoder_attention_mask), len(ids), past + ids.shape[1], self.device
            ),
            states,
            attentions,
            memory,
            attention_mask_arguments(self._integers(attention_mask), len(ids), length, self.device),
            cache,
            cross,
        )
        logits = self.project(x[:, -logits_to_keep:] if logits_to_keep else x)
        wanted_tokens = labels if labels is not None else targets
        return Seq2SeqLMOutput(
            logits=logits,
            loss=None if wanted_tokens is None else ops.cross_entropy(logits, self._integers(wanted_tokens)),
            decoder_hidden_states=_tuple(states),
            decoder_attentions=_tuple(attentions),
            cross_attentions=_tuple(cross),
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def new_cache(self, capacity: int = 0, implementation: str = "dynamic", rows: int = 1) -> EncoderDecoderCache:
        """An empty cache for decoding, with room for `capacity` tokens at once; it grows unless that is enough."""
        if implementation not in ("dynamic", "static"):
            raise ValueError(f'the cache of an encoder-decoder model is "dynamic" or "static"; got {implementation!r}')
        return EncoderDecoderCache(self.n_layer, capacity)

    def _encoded(self, input_ids, attention_mask, encoder_outputs, cache, rows: int, wanted: dict) -> EncoderOutput:
        """What the encoder says, or said: without hidden states where the cache has taken them up."""
        given = (input_ids is not None) + (encoder_outputs is not None)
        if cache is not None and cache.memory_length is not None:
            if given:
                raise ValueError("the cache holds what the encoder said: leave out input_ids and encoder_outputs")
            return EncoderOutput(None)
        if given != 1:
            raise ValueError("give input_ids or, once they are encoded, encoder_outputs: one of the two")
        if encoder_outputs is None:
            encoder_outputs = self.encode(input_ids, attention_mask, **wanted)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = EncoderOutput(encoder_outputs[0])
        if encoder_outputs.last_hidden_state.shape[0] != rows:
            raise ValueError(
                f"the encoder read {encoder_outputs.last_hidden_state.shape[0]} texts, and the decoder has {rows} rows"
            )
        return encoder_outputs

    def _decoder_ids(self, decoder_input_ids, labels, input_ids):
        if decoder_input_ids is not None:
            return self._token_ids(decoder_input_ids, "decoder_input_ids")
        source = labels if labels is not None else input_ids if self.shifts_input_ids else None
        if source is None:
            raise ValueError("give decoder_input_ids, or labels to make them from")
        source = self._token_ids(source, "labels" if labels is not None else "input_ids")
        return shift_tokens_right(source, self.config.pad_token_id, self.config.decoder_start_token_id)

    def _token_ids(self, values, name: str):
        ids = self._integers(values)
        if ids is None or ids.ndim != 2 or not ids.size:
            shape = None if ids is None else ids.shape
            raise ValueError(f"{name} must be (B, T), at least one token; got shape {shape}. One row: ids[None]")
        return ids


def shift_tokens_right(tokens, pad_token_id: int | None, decoder_start_token_id: int | None):
    """The decoder's input (B, T) for wanted `tokens` (B, T): the start token, then all but the last of them.

    Tokens of -100, which the loss ignores, become padding. Raises ValueError where the config lacks either token.

    >>> import numpy as np
    >>> shift_tokens_right(np.array([[5, 6, -100, -100]]), pad_token_id=1, decoder_start_token_id=2)
    array([[2, 5, 6, 1]])
    """
    if pad_token_id is None or decoder_start_token_id is None:
        raise ValueError(
            "the decoder's input is made with the config's pad_token_id and decoder_start_token_id; they are "
            f"{pad_token_id} and {decoder_start_token_id}. Set both, or give decoder_input_ids"
        )
    shifted = array_module(tokens).empty_like(tokens)
    shifted[:, 0], shifted[:, 1:] = decoder_start_token_id, tokens[:, :-1]
    shifted[shifted == -100] = pad_token_id
    return shifted


def _tuple(found: list | None) -> tuple | None:
    return None if found is None else tuple(found)
