"""T5 (Raffel et al. 2019, arXiv:1910.10683): an encoder-decoder whose attention knows positions by their distance.

Distances fall into buckets, and each head adds a learnt number for the bucket to its scores, which are not scaled; the
first layer's numbers serve all layers. An RMS norm comes before each part. Version 1.1 and FLAN-T5 have a gated
network and an output layer of their own. Weight names, shapes and config keys are transformers'.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Self

import numpy as np

from minilm import nn, ops
from minilm.autograd import Tensor
from minilm.backend import Generator, array_module, to_numpy

from .encoder_decoder import EncoderDecoderCache, EncoderDecoderLM
from .pretrained import Config

__all__ = ["T5Config", "T5ForConditionalGeneration", "relative_position_buckets"]


@dataclass
class T5Config(Config):
    """The shape of a T5; the defaults are t5-small's.

    `feed_forward_proj` is an activation's name, or "gated-" and one ("gated-gelu" means the approximation by tanh).
    Raises ValueError for sizes that do not fit and unknown activations.

    >>> config = T5Config(num_layers=2, feed_forward_proj="gated-gelu")
    >>> config.num_decoder_layers, config.is_gated, config.activation_function
    (2, True, 'gelu_new')
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64  # width of a head; n heads need not be as wide as the model
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: num_layers
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None  # by 1 / sqrt(d_model), before the output layer; None: where it is tied
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = 0

    model_type = "t5"
    refused = ("is_decoder", "pruned_heads", "quantization_config")

    def __post_init__(self) -> None:
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers
        if self.scale_decoder_outputs is None:
            self.scale_decoder_outputs = self.tie_word_embeddings
        self._check_counts("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
        self._check_probabilities("dropout_rate")
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or distance <= buckets // 2:
            raise ValueError(
                "relative_attention_num_buckets must be at least 4, and relative_attention_max_distance more than half "
                f"of it; got {buckets} and {distance}"
            )
        nn.activation(self.activation_function)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """As `Config.from_dict`; what files say of `feed_forward_proj` a second time must agree with it."""
        config = super().from_dict(values)
        for name, own in (("dense_act_fn", config.activation_function), ("is_gated_act", config.is_gated)):
            if values.get(name) not in (None, own):
                raise ValueError(
                    f"the config has {name} = {values[name]!r}, and feed_forward_proj = {config.feed_forward_proj!r}, "
                    f"for which it is {own!r}"
                )
        return config

    @property
    def is_gated(self) -> bool:
        """Whether the position-wise network multiplies its activations with a second product."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation_function(self) -> str:
        """The name of the activation in the position-wise network."""
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")


class Attention(nn.Module):
    """Attention of x on keys and values that are made beforehand, from x itself or from what the encoder says."""

    def __init__(self, config: T5Config, generator: Generator | None, has_bias: bool = False):
        width, inner = config.d_model, config.num_heads * config.d_kv
        self.n_head, self.attention_dropout = config.num_heads, config.dropout_rate
        self.q = _linear(config, width, inner, (width * config.d_kv) ** -0.5, generator)
        self.k = _linear(config, width, inner, width**-0.5, generator)
        self.v = _linear(config, width, inner, width**-0.5, generator)
        self.o = _linear(config, inner, width, inner**-0.5, generator)
        if has_bias:
            std = config.initializer_factor * width**-0.5
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads, std, generator
            )

    def keys_values(self, x) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of x (B, S, C)."""
        return ops.split_heads(self.k(x), self.n_head), ops.split_heads(self.v(x), self.n_head)

    def forward(self, x, k, v, seen: dict, attentions: list | None):
        q, seen = ops.split_heads(self.q(x), self.n_head), {"scale": 1.0, **seen}
        if attentions is not None:
            attentions.append(ops.attention_weights(q, k, **seen))
        dropout = self.attention_dropout if self.training else 0.0
        return self.o(ops.join_heads(ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **seen)))


class SelfAttention(nn.Module):
    """x + attention on x, normalised."""

    def __init__(self, config: T5Config, index: int, generator: Generator | None):
        self.index = index
        self.SelfAttention = Attention(config, generator, has_bias=index == 0)
        self.layer_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon, narrow=True)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x, seen: dict, cache: EncoderDecoderCache | None, attentions: list | None):
        y = self.layer_norm(x)
        k, v = self.SelfAttention.keys_values(y)
        if cache is not None:
            k, v, seen = cache.attend(self.index, k, v, seen)
        return x + self.dropout(self.SelfAttention(y, k, v, seen, attentions))


class CrossAttention(nn.Module):
    """x, normalised, attends to what the encoder says, and is added."""

    def __init__(self, config: T5Config, index: int, generator: Generator | None):
        self.index = index
        self.EncDecAttention = Attention(config, generator)
        self.layer_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon, narrow=True)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x, memory, seen: dict, cache: EncoderDecoderCache | None, attentions: list | None):
        make = lambda: self.EncDecAttention.keys_values(memory)
        k, v = make() if cache is None else cache.memory(self.index, make)
        return x + self.dropout(self.EncDecAttention(self.layer_norm(x), k, v, seen, attentions))


class DenseReluDense(nn.Module):
    """The position-wise network: wo(act(wi(x))) or, gated, wo(act(wi_0(x)) * wi_1(x)) (Shazeer 2020)."""

    def __init__(self, config: T5Config, generator: Generator | None):
        self.is_gated, self.act = config.is_gated, nn.activation(config.activation_function)
        for name in ("wi_0", "wi_1") if config.is_gated else ("wi",):
            setattr(self, name, _linear(config, config.d_model, config.d_ff, config.d_model**-0.5, generator))
        self.wo = _linear(config, config.d_ff, config.d_model, config.d_ff**-0.5, generator)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x):
        y = self.wi_0(x, self.act) * self.wi_1(x) if self.is_gated else self.wi(x, self.act)
        return self.wo(self.dropout(y))


class FeedForward(nn.Module):
    """x + the position-wise network of x, normalised."""

    def __init__(self, config: T5Config, generator: Generator | None):
        self.DenseReluDense = DenseReluDense(config, generator)
        self.layer_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon, narrow=True)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x):
        return x + self.dropout(self.DenseReluDense(self.layer_norm(x)))


class Block(nn.Module):
    """A layer; its parts have the places in `layer` that transformers gives them."""

    def __init__(self, config: T5Config, is_decoder: bool, index: int, generator: Generator | None):
        self.layer = nn.ModuleList([SelfAttention(config, index, generator)])
        if is_decoder:
            self.layer.append(CrossAttention(config, index, generator))
        self.layer.append(FeedForward(config, generator))

    def forward(self, x, seen: dict, attentions, memory, memory_mask, cache, cross_attentions):
        first, *cross, last = self.layer
        x = first(x, seen, cache, attentions)
        for part in cross:
            x = part(x, memory, memory_mask, cache, cross_attentions)
        return last(x)


class Stack(nn.Module):
    """One side of the model, encoder or decoder: token ids to hidden states."""

    def __init__(self, config: T5Config, is_decoder: bool, embed_tokens: nn.Embedding, generator: Generator | None):
        self.is_decoder, self.embed_tokens = is_decoder, embed_tokens
        self.max_distance = config.relative_attention_max_distance
        count = config.num_decoder_layers if is_decoder else config.num_layers
        self.block = nn.ModuleList(Block(config, is_decoder, index, generator) for index in range(count))
        self.final_layer_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self, ids, mask, states, attentions, memory=None, memory_mask=None, cache=None, cross_attentions=None
    ):  # ids: (B, T)
        x = self.dropout(self.embed_tokens(ids))
        bias = self.position_bias(ids, 0 if cache is None else len(cache))
        if "attn_mask" in mask:
            bias = ops.where(mask["attn_mask"], bias, -math.inf)
        seen = {**mask, "causal": self.is_decoder, "attn_mask": bias}
        for block in self.block:
            if states is not None:
                states.append(x)
            x = block(x, seen, attentions, memory, memory_mask, cache, cross_attentions)
        x = self.dropout(self.final_layer_norm(x))
        if states is not None:
            states.append(x)
        return x

    def position_bias(self, ids, past: int):
        """What each head adds to the scores for the distance of key and query: (1, H, T, past + T)."""
        xp, stop = array_module(ids), past + ids.shape[1]
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        distance = np.arange(stop) - np.arange(past, stop)[:, None]
        buckets = relative_position_buckets(distance, not self.is_decoder, table.weight.shape[0], self.max_distance)
        return ops.transpose(table(xp.asarray(buckets)), (2, 0, 1))[None]


class T5ForConditionalGeneration(EncoderDecoderLM):
    """T5 with its language-model head.

    >>> import numpy as np
    >>> model = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1,
    ...     num_heads=2)).eval()
    >>> out = model(np.array([[7, 8, 1]]), labels=np.array([[9, 10, 11, 1]]))
    >>> out.logits.shape, out.loss.shape
    ((1, 4, 50), ())
    """

    config_class = T5Config
    architecture = "T5ForConditionalGeneration"

    def __init__(self, config: T5Config, generator: Generator | None = None):
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.initializer_factor, generator)
        self.encoder = Stack(config, False, self.shared, generator)
        self.decoder = Stack(config, True, self.shared, generator)
        if not config.tie_word_embeddings:
            self.lm_head = _linear(config, config.d_model, config.vocab_size, 1.0, generator)

    @property
    def n_layer(self) -> int:
        """How many layers keep keys and values."""
        return self.config.num_decoder_layers

    @property
    def max_length(self) -> int:
        """The most tokens that either side can look at: distances have no end."""
        return sys.maxsize

    def project(self, x):
        """Logits (..., V) of the decoder's hidden states (..., C)."""
        if self.config.scale_decoder_outputs:
            x = x * self.config.d_model**-0.5
        return self.shared.project(x) if self.config.tie_word_embeddings else self.lm_head(x)

    def own_names(self, weights: dict) -> dict:
        """The weights of a file, without copies of the embeddings and a bias that old files have and nobody uses.

        Whether the output layer is tied is what the file says, as in transformers, which writes that it is in any case:
        an output layer that differs from the embeddings is one of its own. Raises ValueError for a file whose sides
        have different embeddings.
        """
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        weights = {name: array for name, array in weights.items() if name != unused}
        tables = [f"{side}embed_tokens.weight" for side in ("encoder.", "decoder.")]
        tables = [weights.pop(name) for name in tables if name in weights]
        head = weights.pop("lm_head.weight", None)
        known = [array for array in (*tables, head) if array is not None]
        shared = weights.setdefault("shared.weight", known[0]) if known else weights.get("shared.weight")
        if any(not np.array_equal(to_numpy(shared), to_numpy(table)) for table in tables):
            raise ValueError(
                "the file has an embed_tokens.weight that differs from its shared.weight; T5 has one table"
            )
        own_head = head is not None and not np.array_equal(to_numpy(shared), to_numpy(head))
        if own_head and self.config.tie_word_embeddings:
            self.lm_head = _linear(self.config, self.config.d_model, self.config.vocab_size, 1.0, None)
        elif not own_head and not self.config.tie_word_embeddings:
            del self.lm_head
        self.config.tie_word_embeddings = not own_head
        return {**weights, "lm_head.weight": head} if own_head else weights


def relative_position_buckets(distance: np.ndarray, both_ways: bool, n_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket, 0..n - 1, of each distance from a query to a key (below 0: the key comes first).

    Half of the buckets hold one distance each, the others ever more, up to `max_distance` and beyond. With `both_ways`
    keys before and after the query have half of all buckets each; else those after it count as distance 0.

    >>> relative_position_buckets(np.array([-200, -20, -3, 0, 3]), True, 32, 128)
    array([15, 10,  3,  0, 19])
    """
    start = 0
    if both_ways:
        n_buckets //= 2
        start, distance = (distance > 0) * n_buckets, np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = n_buckets // 2
    ratio = np.maximum(distance, exact).astype(np.float32) / exact
    wide = exact + (np.log(ratio) / math.log(max_distance / exact) * (n_buckets - exact)).astype(np.int64)
    return start + np.where(distance < exact, distance, np.minimum(wide, n_buckets - 1))


def _linear(config: T5Config, n_in: int, n_out: int, std: float, generator: Generator | None) -> nn.Linear:
    """A Linear without bias, with the family's first weights."""
    return nn.Linear(n_in, n_out, False, generator, config.initializer_factor * std)
