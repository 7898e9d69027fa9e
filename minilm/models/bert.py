"""BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805): an encoder that sees both sides of each token.

Layer norm comes after each part. Weight names, shapes and config keys are those of transformers' Bert classes.
The heads are in bert_heads.py.
"""

from __future__ import annotations

import numpy as np

from minilm import nn, ops
from minilm.autograd import Tensor
from minilm.backend import Generator, to_device, to_numpy
from minilm.nn.attention import attention_mask_arguments

from .bert_config import BertConfig
from .output import EncoderOutput
from .pretrained import PretrainedModel

__all__ = ["Bert", "BertConfig"]


# The encoder.


class Dense(nn.Linear):
    """A Linear that begins as BERT's: normal weights, no bias."""

    def __init__(self, in_features: int, out_features: int, config: BertConfig, generator: Generator | None):
        super().__init__(in_features, out_features, True, generator, config.initializer_range)


class Embeddings(nn.Module):
    """The sum of what a token is, where it is and which of two texts it belongs to, normalised."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        width, std = config.hidden_size, config.initializer_range
        self.word_embeddings = nn.Embedding(config.vocab_size, width, std, generator, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, std, generator)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width, std, generator)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids, token_type_ids, position_ids):
        types = self.token_type_embeddings
        kind = types.weight[0] if token_type_ids is None else types(token_type_ids)
        x = self.word_embeddings(input_ids) + (self.position_embeddings(position_ids) + kind)
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """Attention of each token to all that are no padding."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.query, self.key, self.value = (
            Dense(config.hidden_size, config.hidden_size, config, generator) for _ in range(3)
        )
        self.n_head, self.dropout_p = config.num_attention_heads, config.attention_probs_dropout_prob

    def forward(self, x, mask: dict, attentions: list | None):  # x: (B, T, C)
        q, k, v = (ops.split_heads(part(x), self.n_head) for part in (self.query, self.key, self.value))
        if attentions is not None:
            attentions.append(ops.attention_weights(q, k, **mask))
        dropout = self.dropout_p if self.training else 0.0
        return ops.join_heads(ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **mask))


class Output(nn.Module):
    """The end of each part: a product, added to what the part was given, and normalised."""

    def __init__(self, in_features: int, config: BertConfig, generator: Generator | None):
        self.dense = Dense(in_features, config.hidden_size, config, generator)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x, residual):
        return self.LayerNorm(self.dropout(self.dense(x)), residual)[0]


class Attention(nn.Module):
    """A layer's first part."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.self = SelfAttention(config, generator)
        self.output = Output(config.hidden_size, config, generator)

    def forward(self, x, mask: dict, attentions: list | None):
        return self.output(self.self(x, mask, attentions), x)


class Intermediate(nn.Module):
    """The wide middle of a layer's second part."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.dense = Dense(config.hidden_size, config.intermediate_size, config, generator)
        self.act = nn.activation(config.hidden_act)

    def forward(self, x):
        return self.dense(x, self.act)


class Layer(nn.Module):
    """Attention, then the position-wise network."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.attention = Attention(config, generator)
        self.intermediate = Intermediate(config, generator)
        self.output = Output(config.intermediate_size, config, generator)

    def forward(self, x, mask: dict, attentions: list | None):
        x = self.attention(x, mask, attentions)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.layer = nn.ModuleList(Layer(config, generator) for _ in range(config.num_hidden_layers))

    def forward(self, x, mask: dict, hidden_states: list | None, attentions: list | None):
        for layer in self.layer:
            if hidden_states is not None:
                hidden_states.append(x)
            x = layer(x, mask, attentions)
        if hidden_states is not None:
            hidden_states.append(x)
        return x


class Pooler(nn.Module):
    """What the first token's hidden state says of the whole."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.dense = Dense(config.hidden_size, config.hidden_size, config, generator)

    def forward(self, first):  # (B, C)
        return self.dense(first, ops.tanh)


# The models.


class BertPreTrainedModel(PretrainedModel):
    """What the encoder and its heads share: their config, and the names that files of all ages have."""

    config_class = BertConfig
    base_prefix = "bert."

    def own_names(self, weights: dict) -> dict:
        """As the base class's; old names are known, and parts for which this class has no use are left out.

        A copy of a tied weight is left out too, and refused with a ValueError where it differs.
        """
        own = [*self.named_parameters(), *self.named_buffers()]
        parts = [part for part in _PARTS if not any(name.startswith(part) for name, _ in own)]
        current = {_current(name): array for name, array in weights.items() if not name.endswith(_BUFFERS)}
        weights = super().own_names(current)
        if "cls.predictions." not in parts:
            _join_copies(weights, tied=self.config.tie_word_embeddings)
        return {name: array for name, array in weights.items() if not name.startswith(tuple(parts))}

    def _raw(self, values, name: str, shapes: tuple):
        """A raw array of an array, a Tensor or nested lists; ValueError unless its shape fits."""
        values = self._integers(values)
        if values.shape not in shapes:
            raise ValueError(f"{name} must be {' or '.join(str(s) for s in shapes)}; got {values.shape}")
        return values


_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_PARTS = ("cls.predictions.", "cls.seq_relationship.", "classifier.", "qa_outputs.", "pooler.", "bert.pooler.")


def _current(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _join_copies(weights: dict, tied: bool) -> None:
    """Makes of a language-model head's weights, which files hold once or twice, what its class holds."""
    table, head = "bert.embeddings.word_embeddings.weight", "cls.predictions."
    if not tied:  # a file may hold one of two names for one bias
        for name, other in (("bias", "decoder.bias"), ("decoder.bias", "bias")):
            if f"{head}{other}" in weights:
                weights.setdefault(f"{head}{name}", weights[f"{head}{other}"])
        return
    for name, copy in ((table, f"{head}decoder.weight"), (f"{head}bias", f"{head}decoder.bias")):
        if copy not in weights:
            continue
        array = weights.pop(copy)
        if not np.array_equal(to_numpy(weights.setdefault(name, array)), to_numpy(array)):
            raise ValueError(
                f"the file's {copy} differs from its {name}, but tie_word_embeddings is true in its config; make that "
                "false"
            )


class Bert(BertPreTrainedModel):
    """The encoder: hidden states of all tokens and, with its pooler, one vector for the whole.

    >>> import numpy as np
    >>> config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=8)
    >>> out = Bert(config).eval()(np.array([[1, 2, 3], [4, 5, 0]]), attention_mask=np.array([[1, 1, 1], [1, 1, 0]]))
    >>> out.last_hidden_state.shape, out.pooler_output.shape
    ((2, 3, 16), (2, 16))
    """

    architecture = "BertModel"

    def __init__(self, config: BertConfig, generator: Generator | None = None, add_pooling_layer: bool = True):
        self.config = config
        self.embeddings = Embeddings(config, generator)
        self.encoder = Encoder(config, generator)
        self.pooler = Pooler(config, generator) if add_pooling_layer else None

    def forward(
        self,
        input_ids,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        *,
        cu_seqlens=None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderOutput:
        """Hidden states (B, T, C) of integer `input_ids` (B, T), and the pooler's output (B, C).

        `attention_mask` (B, T) is 1 for tokens to see and 0 for padding, `token_type_ids` (B, T) says which text a
        token is of (0 by default), `position_ids` (T,) or (B, T) count from 0 by default. Integers come as NumPy or
        CuPy arrays, Tensors or nested lists. With `output_attentions` come each layer's weights (B, H, T, T), before
        dropout.

        Instead of padding, n texts may lie one after another in a single row, (1, T), the i-th from `cu_seqlens[i]` to
        `cu_seqlens[i + 1]`, (n + 1,): none sees another, each counts its positions from 0, and the pooler's output is
        (n, C). That costs nothing for texts of unequal lengths.

        Raises ValueError for shapes that do not fit and for more than `max_position_embeddings` tokens,
        IndexError for what is in no table.
        """
        ids = input_ids if hasattr(input_ids, "shape") else np.asarray(input_ids)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(
                f"input_ids must be (B, T), at least one token; got shape {tuple(ids.shape)}. One row: ids[None]"
            )
        shape = tuple(ids.shape)
        ids = self._raw(ids, "input_ids", (shape,))
        if token_type_ids is not None:
            token_type_ids = self._raw(token_type_ids, "token_type_ids", (shape,))
        if cu_seqlens is not None:
            mask, first = self._packed(cu_seqlens, attention_mask, shape)
        else:
            mask = None if attention_mask is None else self._raw(attention_mask, "attention_mask", (shape,))
            mask, first = attention_mask_arguments(mask, *shape, self.device), (slice(None), 0)
        if position_ids is None:
            position_ids = self._positions(shape[1], mask.get("cu_seqlens"))
        else:
            position_ids = self._raw(position_ids, "position_ids", (shape[1:], shape, (1, shape[1])))
        hidden_states, attentions = [] if output_hidden_states else None, [] if output_attentions else None
        x = self.encoder(self.embeddings(ids, token_type_ids, position_ids), mask, hidden_states, attentions)
        pooled = None if self.pooler is None else self.pooler(x[first])
        return EncoderOutput(
            x, pooled, *(None if seen is None else tuple(seen) for seen in (hidden_states, attentions))
        )

    def _packed(self, cu_seqlens, attention_mask, shape: tuple) -> tuple[dict, tuple]:
        """What attention is told of texts in one row, and where the first token of each is."""
        starts = cu_seqlens._data if isinstance(cu_seqlens, Tensor) else cu_seqlens
        starts = to_numpy(starts) if hasattr(starts, "dtype") else np.asarray(starts)
        if attention_mask is not None or shape[0] != 1:
            raise ValueError(f"cu_seqlens is for texts in one row, (1, T), and no attention_mask; got shape {shape}")
        fits = starts.ndim == 1 and len(starts) > 1 and starts.dtype.kind in "iu"
        if not fits or starts[0] != 0 or starts[-1] != shape[1] or (starts[1:] <= starts[:-1]).any():
            raise ValueError(f"cu_seqlens must rise from 0 to {shape[1]}, a start a text, and the end; got {starts}")
        return {"cu_seqlens": starts}, (0, to_device(starts[:-1], self.device))

    def _positions(self, length: int, starts):
        """0, 1, 2, ... in each row, or in each of the texts that begin at `starts`."""
        positions = np.arange(length)
        if starts is not None:
            positions -= np.repeat(starts[:-1], np.diff(starts))
        if positions.max() >= self.config.max_position_embeddings:
            raise ValueError(
                f"{positions.max() + 1} tokens are more than the model's max_position_embeddings, "
                f"{self.config.max_position_embeddings}; truncate"
            )
        return positions

    def own_names(self, weights: dict) -> dict:
        """As the heads', without the prefix `bert.`; the heads of a file are left out."""
        return super().own_names({name.removeprefix("bert."): array for name, array in weights.items()})
