"""BART (Lewis et al. 2019, arXiv:1910.13461): the encoder-decoder Transformer (Vaswani et al. 2017, arXiv:1706.03762).

A norm follows each part, as in the original; positions are learnt. The layers serve Marian and the original as well
(see marian.py). Weight names, shapes and config keys are those of transformers' BartForConditionalGeneration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minilm import nn, ops
from minilm.autograd import Tensor
from minilm.backend import Generator, array_module, to_numpy

from .encoder_decoder import EncoderDecoderLM
from .pretrained import Config

__all__ = ["BartConfig", "BartForConditionalGeneration", "sinusoids"]

_OFFSET = 2  # BART's learned positions begin at the third row of their table


@dataclass
class BartConfig(Config):
    """The shape of a BART; the defaults are bart-large's.

    Raises ValueError for sizes that do not fit, probabilities outside [0, 1] and unknown activations.

    >>> config = BartConfig(d_model=64, encoder_layers=2, decoder_layers=2)
    >>> config.encoder_attention_heads, config.decoder_start_token_id
    (16, 2)
    """

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False  # by sqrt(d_model)
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = 2
    bad_words_ids: list[list[int]] | None = None  # never generated; Marian's published models have the padding here

    model_type = "bart"
    learned_positions = True
    layernorm_embedding = True
    share_encoder_decoder_embeddings = True
    refused = (
        "normalize_before", "add_final_layer_norm", "encoder_layerdrop", "decoder_layerdrop", "pruned_heads",
        "quantization_config", "is_decoder", "add_cross_attention",
    )  # fmt: skip

    def __post_init__(self) -> None:
        sides = [f"{side}_{part}" for side in ("encoder", "decoder") for part in ("layers", "ffn_dim")]
        heads = ("encoder_attention_heads", "decoder_attention_heads")
        self._check_counts("vocab_size", "max_position_embeddings", "d_model", *sides, *heads)
        self._check_probabilities("dropout", "attention_dropout", "activation_dropout")
        for name in heads:
            if self.d_model % getattr(self, name):
                raise ValueError(f"d_model ({self.d_model}) must be a multiple of {name} ({getattr(self, name)})")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < min(self.vocab_size, self.target_vocab_size):
            raise ValueError(f"pad_token_id must be a token of the vocabulary; got {self.pad_token_id}")
        nn.activation(self.activation_function)

    @property
    def target_vocab_size(self) -> int:
        """How many tokens the decoder knows."""
        return self.vocab_size


class Attention(nn.Module):
    """Multi-head attention of x on keys and values that are made beforehand, from x itself or from the encoder's."""

    def __init__(self, config: BartConfig, n_head: int, generator: Generator | None):
        self.n_head, self.attention_dropout = n_head, config.attention_dropout
        self.k_proj = nn.Linear(config.d_model, config.d_model, True, generator, config.init_std)
        self.v_proj = nn.Linear(config.d_model, config.d_model, True, generator, config.init_std)
        self.q_proj = nn.Linear(config.d_model, config.d_model, True, generator, config.init_std)
        self.out_proj = nn.Linear(config.d_model, config.d_model, True, generator, config.init_std)

    def keys_values(self, x) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of x (B, S, C)."""
        return ops.split_heads(self.k_proj(x), self.n_head), ops.split_heads(self.v_proj(x), self.n_head)

    def forward(self, x, k, v, seen: dict, attentions: list | None):
        q = ops.split_heads(self.q_proj(x), self.n_head)
        if attentions is not None:
            attentions.append(ops.attention_weights(q, k, **seen))
        dropout = self.attention_dropout if self.training else 0.0
        return self.out_proj(ops.join_heads(ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **seen)))


class Layer(nn.Module):
    """Self-attention, in the decoder attention on what the encoder says, the position-wise network.

    Each is added to its input, and the sum normalised.
    """

    def __init__(self, config: BartConfig, side: str, index: int, generator: Generator | None):
        n_head, inner = getattr(config, f"{side}_attention_heads"), getattr(config, f"{side}_ffn_dim")
        self.index, self.causal = index, side == "decoder"
        self.self_attn = Attention(config, n_head, generator)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        if side == "decoder":
            self.encoder_attn = Attention(config, n_head, generator)
            self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, inner, True, generator, config.init_std)
        self.fc2 = nn.Linear(inner, config.d_model, True, generator, config.init_std)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.act = nn.activation(config.activation_function)
        self.dropout, self.activation_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)

    def forward(self, x, mask, attentions, memory=None, memory_mask=None, cache=None, cross_attentions=None):
        k, v = self.self_attn.keys_values(x)
        seen = {"causal": self.causal, **mask}
        if cache is not None:
            k, v, seen = cache.attend(self.index, k, v, seen)
        y = self.self_attn(x, k, v, seen, attentions)
        x, _ = self.self_attn_layer_norm(self.dropout(y), residual=x)  # normalises the sum, in one pass
        if self.causal:
            make = lambda: self.encoder_attn.keys_values(memory)
            k, v = make() if cache is None else cache.memory(self.index, make)
            y = self.encoder_attn(x, k, v, memory_mask, cross_attentions)
            x, _ = self.encoder_attn_layer_norm(self.dropout(y), residual=x)
        y = self.fc2(self.activation_dropout(self.fc1(x, self.act)))
        x, _ = self.final_layer_norm(self.dropout(y), residual=x)
        return x


class Stack(nn.Module):
    """One side of the model, encoder or decoder: token ids to hidden states."""

    def __init__(self, config: BartConfig, side: str, embed_tokens: nn.Embedding, generator: Generator | None):
        width, length = config.d_model, config.max_position_embeddings
        self.embed_tokens, self.max_length = embed_tokens, length
        self.scale = math.sqrt(width) if config.scale_embedding else 1.0
        if config.learned_positions:
            self.embed_positions = nn.Embedding(length + _OFFSET, width, config.init_std, generator)
        else:
            self.register_buffer("embed_positions", sinusoids(length, width), persistent=False)
        layers = range(getattr(config, f"{side}_layers"))
        self.layers = nn.ModuleList(Layer(config, side, index, generator) for index in layers)
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, ids, mask, states, attentions, memory=None, memory_mask=None, cache=None, cross_attentions=None
    ):  # ids: (B, T)
        x = self.embed(ids, 0 if cache is None else len(cache))
        for layer in self.layers:
            if states is not None:
                states.append(x)
            x = layer(x, mask, attentions, memory, memory_mask, cache, cross_attentions)
        if states is not None:
            states.append(x)
        return x

    def embed(self, ids, past: int):
        """Embeddings of tokens and positions (B, T, C), `past` tokens coming before them."""
        stop = past + ids.shape[1]
        if stop > self.max_length:
            raise ValueError(f"{stop} tokens are more than the model's max_position_embeddings, {self.max_length}")
        x = self.embed_tokens(ids)
        if self.scale != 1:
            x = x * self.scale
        if isinstance(self.embed_positions, nn.Embedding):
            x = x + self.embed_positions(array_module(ids).arange(past + _OFFSET, stop + _OFFSET))
        else:
            x = x + self.embed_positions[past:stop]
        return self.dropout(x if self.layernorm_embedding is None else self.layernorm_embedding(x))


class Transformer(nn.Module):
    """The two sides and the embeddings that they share."""

    def __init__(self, config: BartConfig, generator: Generator | None):
        shared = config.share_encoder_decoder_embeddings
        if shared:
            self.shared = _embedding(config, config.vocab_size, generator)
        if shared and config.tie_word_embeddings:
            sides = self.shared, self.shared
        else:  # then `shared`, if it is there, has no use but to be in the files
            sides = (_embedding(config, n, generator) for n in (config.vocab_size, config.target_vocab_size))
        self.encoder, self.decoder = (
            Stack(config, side, table, generator) for side, table in zip(("encoder", "decoder"), sides)
        )


class BartForConditionalGeneration(EncoderDecoderLM):
    """BART with its language-model head, tied to the token embeddings unless the config says otherwise.

    >>> import numpy as np
    >>> config = BartConfig(vocab_size=50, d_model=16, max_position_embeddings=8, encoder_layers=1, decoder_layers=1,
    ...     encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2)
    >>> model = BartForConditionalGeneration(config).eval()
    >>> out = model(np.array([[0, 7, 8, 2]]), labels=np.array([[9, 10, 2]]))
    >>> out.logits.shape, out.loss.shape
    ((1, 3, 50), ())
    """

    config_class = BartConfig
    architecture = "BartForConditionalGeneration"
    base_prefix = "model."
    shifts_input_ids = True  # BART learns to restore its own input

    def __init__(self, config: BartConfig, generator: Generator | None = None):
        self.config = config
        self.model = Transformer(config, generator)
        self.register_buffer("final_logits_bias", np.zeros((1, config.target_vocab_size), np.float32))
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.target_vocab_size, False, generator, config.init_std)

    @property
    def encoder(self) -> Stack:
        """The side that reads."""
        return self.model.encoder

    @property
    def decoder(self) -> Stack:
        """The side that writes."""
        return self.model.decoder

    @property
    def n_layer(self) -> int:
        """How many layers keep keys and values."""
        return self.config.decoder_layers

    @property
    def max_length(self) -> int:
        """The most tokens that either side can look at."""
        return self.config.max_position_embeddings

    def project(self, x):
        """Logits (..., V) of the decoder's hidden states (..., C)."""
        head = self.decoder.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return ops.linear(x, head.weight, self.final_logits_bias.reshape(-1))

    def own_names(self, weights: dict) -> dict:
        """As the base class's; copies of shared weights and what is no weight are left out.

        Raises ValueError for a file whose copies differ where the config says that they are one.
        """
        weights = super().own_names({name: x for name, x in weights.items() if not name.endswith(".version")})
        if "final_logits_bias" not in weights:  # a file of the model without its head
            weights["final_logits_bias"] = self.final_logits_bias.data
        tied = ["lm_head.weight", "model.decoder.embed_tokens.weight"]
        if self.config.share_encoder_decoder_embeddings:
            tied += ["model.encoder.embed_tokens.weight", "model.shared.weight"]
        if self.config.tie_word_embeddings:
            copies = [weights.pop(name) for name in tied if name in weights]
            if not all(np.array_equal(to_numpy(copies[0]), to_numpy(copy)) for copy in copies[1:]):
                raise ValueError(
                    f"the file's {', '.join(tied)} differ, but its config says that they are one; "
                    "make tie_word_embeddings false in it"
                )
            if copies:
                weights[tied[-1]] = copies[0]
        return weights


def sinusoids(n_positions: int, d_model: int) -> np.ndarray:
    """Fixed embeddings (n, C) of positions: sines of ever longer waves in the first half, cosines in the second."""
    nn.init.take_room((n_positions, d_model))
    angles = np.arange(n_positions)[:, None] / 10000 ** (np.arange(0, d_model, 2) / d_model)
    return np.concatenate([np.sin(angles), np.cos(angles)[:, : d_model // 2]], axis=1).astype(np.float32)


def _embedding(config: BartConfig, n: int, generator: Generator | None) -> nn.Embedding:
    return nn.Embedding(n, config.d_model, config.init_std, generator, padding_idx=config.pad_token_id)
