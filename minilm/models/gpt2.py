"""GPT-2 (Radford et al. 2019): a decoder-only transformer with learned positions and layer norm before each part.

Weight names, shapes and config keys are those of transformers' GPT2LMHeadModel, so that weights go both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minilm import nn, ops
from minilm.autograd import autocast
from minilm.backend import Generator
from minilm.nn.cache import KeyValueCache

from .causal_lm import CausalLM
from .output import CausalLMOutput
from .pretrained import Config

__all__ = ["GPT2", "GPT2Config"]


@dataclass
class GPT2Config(Config):
    """The shape of a GPT-2; the defaults are the smallest published model's (124M parameters).

    With `reorder_and_upcast_attn` attention is computed in float32 where the model, or `autocast`, is in half precision
    (Mistral's GPT-2 was trained so). Raises ValueError for sizes that do not fit, probabilities outside [0, 1] and
    unknown activations.

    >>> config = GPT2Config(n_layer=2, n_head=4, n_embd=64)
    >>> config.vocab_size, config.n_positions
    (50257, 1024)
    >>> GPT2Config(n_head=5, n_embd=64)
    Traceback (most recent call last):
    ...
    ValueError: ...
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width of the feed-forward part; None: 4 n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    model_type = "gpt2"
    refused = ("add_cross_attention", "pruned_heads", "quantization_config")

    def __post_init__(self) -> None:
        self._check_counts("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        self._check_probabilities("resid_pdrop", "embd_pdrop", "attn_pdrop")
        nn.activation(self.activation_function)
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")


class Attention(nn.Module):
    """Causal self-attention: one product for q, k and v of all heads, the kernel, one product to mix the heads."""

    def __init__(self, config: GPT2Config, layer: int, generator: Generator | None):
        width = config.n_embd
        self.layer, self.n_head = layer, config.n_head
        self.scale = 1 / math.sqrt(width // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.c_attn = nn.Conv1D(width, 3 * width, config.initializer_range, generator)
        self.c_proj = nn.Conv1D(width, width, residual_std(config), generator)
        self.attn_pdrop, self.upcast = config.attn_pdrop, config.reorder_and_upcast_attn
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x, mask: dict, cache: KeyValueCache | None, attentions: list | None = None):  # x: (B, T, C)
        dropout = self.attn_pdrop if self.training else 0.0
        settings = {"causal": True, "scale": self.scale, **mask}
        qkv = self.c_attn(x)
        if self.upcast and qkv.dtype.itemsize == 2:
            with autocast(None):
                y = self._attend(ops.astype(qkv, "float32"), dropout, settings, cache, attentions)
            return self.resid_dropout(self.c_proj(ops.astype(y, qkv.dtype)))
        return self.resid_dropout(self.c_proj(self._attend(qkv, dropout, settings, cache, attentions)))

    def _attend(self, qkv, dropout: float, settings: dict, cache: KeyValueCache | None, attentions: list | None):
        if cache is None and attentions is None:
            return ops.packed_self_attention(qkv, self.n_head, dropout_p=dropout, **settings)
        q, k, v = (ops.split_heads(part, self.n_head) for part in ops.split(qkv, 3, axis=2))
        if cache is not None:
            k, v, settings = cache.attend(self.layer, k, v, settings)
        if attentions is not None:
            attentions.append(ops.attention_weights(q, k, **settings))
        return ops.join_heads(ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **settings))


class MLP(nn.Module):
    """The position-wise network: four times wider inside, GELU."""

    def __init__(self, config: GPT2Config, generator: Generator | None):
        inner = config.n_inner if config.n_inner is not None else 4 * config.n_embd
        self.c_fc = nn.Conv1D(config.n_embd, inner, config.initializer_range, generator)
        self.c_proj = nn.Conv1D(inner, config.n_embd, residual_std(config), generator)
        self.act = nn.activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x):
        return self.dropout(self.c_proj(self.c_fc(x, self.act)))


class Block(nn.Layer):
    """A layer: attention, then the MLP, each on normalised input and added to the residual stream x."""

    def __init__(self, config: GPT2Config, layer: int, generator: Generator | None):
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, narrow=True)
        self.attn = Attention(config, layer, generator)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, narrow=True)
        self.mlp = MLP(config, generator)

    def forward(self, x, mask: dict, cache: KeyValueCache | None, attentions: list | None = None):
        return self.part("block", self._forward, x, mask, cache, attentions)

    def _forward(self, x, *rest):
        attended = self.part("attention", self._attend, x, *rest)
        y, x = self.ln_2(attended, residual=x)  # adds, then normalises the sum, in one pass
        return x + self.mlp(y)

    def _attend(self, x, *rest):
        return self.attn(self.ln_1(x), *rest)


class Transformer(nn.Module):
    """Token ids to hidden states: embeddings, the layers, a last norm."""

    def __init__(self, config: GPT2Config, generator: Generator | None):
        self.wte = nn.Embedding(config.vocab_size, config.n_embd, config.initializer_range, generator)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd, config.initializer_range, generator)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config, layer, generator) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def forward(self, input_ids, positions, mask: dict, cache: KeyValueCache | None, states=None, attentions=None):
        """Hidden states (B, T, C); those before each layer and the last, and attention weights, go into the lists."""
        x = self.drop(self.wte(input_ids) + self.wpe(positions))
        for block in self.h:
            if states is not None:
                states.append(x)
            x = block(x, mask, cache, attentions)
        x = self.ln_f(x)
        if states is not None:
            states.append(x)
        return x


class GPT2(CausalLM):
    """GPT-2 with its language-model head, tied to the token embeddings unless the config says otherwise.

    >>> import numpy as np
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2)).eval()
    >>> ids = np.array([[1, 2, 3, 4]])
    >>> model(ids).logits.shape
    (1, 4, 50)
    >>> model(ids[:, :-1], targets=ids[:, 1:]).loss.shape
    ()
    """

    config_class = GPT2Config
    architecture = "GPT2LMHeadModel"
    base_prefix = "transformer."

    def __init__(self, config: GPT2Config, generator: Generator | None = None):
        self.config = config
        self.transformer = Transformer(config, generator)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, False, generator, config.initializer_range)

    def forward(
        self,
        input_ids,
        targets=None,
        attention_mask=None,
        position_ids=None,
        cache: KeyValueCache | None = None,
        logits_to_keep: int = 0,
        *,
        labels=None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> CausalLMOutput:
        """Logits (B, T, V) for integer `input_ids` (B, T), and the mean loss if `targets` or `labels` are given.

        `targets` (B, T) are aligned with the logits: targets[b, t] is the token after input_ids[b, t]; `labels` are
        aligned with input_ids, as in transformers; -100 is ignored. `attention_mask` (B, S) is 1 for real tokens and 0
        for padding, over the cached tokens too; positions count real tokens only, unless `position_ids` (B, T) or (T,)
        are given. `cache` holds earlier tokens' keys and values and takes up these. `logits_to_keep` n > 0 computes the
        last n only. Integers come as NumPy or CuPy arrays, Tensors or nested lists. Raises ValueError for shapes that
        do not fit, or more tokens than `n_positions`.
        """
        ids, positions, mask = self._inputs(input_ids, attention_mask, position_ids, cache)
        states, attentions = [] if output_hidden_states else None, [] if output_attentions else None
        x = self.transformer(ids, positions, mask, cache, states, attentions)
        head = self.transformer.wte.project if self.config.tie_word_embeddings else self.lm_head
        kept = (None if found is None else tuple(found) for found in (states, attentions))
        return self._output(x, head, targets, labels, logits_to_keep, *kept)

    @property
    def n_layer(self) -> int:
        """How many layers keep keys and values."""
        return self.config.n_layer

    @property
    def max_length(self) -> int:
        """The most tokens, cached ones included, that the model can look at."""
        return self.config.n_positions

    def own_names(self, weights: dict) -> dict:
        """As the base class's, without the causal masks that old files store; a tied head is the token embedding.

        Raises ValueError for a file with a head of its own where the config says that it is tied.
        """
        weights = super().own_names(
            {k: v for k, v in weights.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
        )
        return self._without_copy(weights, "transformer.wte.weight")


def residual_std(config: GPT2Config) -> float:
    """GPT-2's smaller start for what is added to the residual stream, so that its variance does not grow with depth."""
    return config.initializer_range / math.sqrt(2 * config.n_layer)
