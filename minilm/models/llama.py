"""Llama (Touvron et al. 2023, arXiv:2302.13971), and Mistral and Qwen2, which differ from it by a config switch.

A decoder-only transformer with RMS norm before each part, rotary positions, a gated feed-forward layer and, in the
larger ones, several query heads to a key head. Weight names, shapes and config keys are transformers'.
"""

from __future__ import annotations

from minilm import nn, ops
from minilm.backend import Generator, array_module, device_of, to_device
from minilm.nn.cache import KeyValueCache

from .causal_lm import CausalLM
from .llama_config import LlamaConfig, MistralConfig, Qwen2Config
from .llama_step import step_through_layers
from .output import CausalLMOutput
from .rope import frequencies_on

__all__ = ["Llama", "Mistral", "Qwen2"]


class Attention(nn.Module):
    """Causal self-attention with rotary positions; several query heads may share a key and a value head."""

    def __init__(self, config: LlamaConfig, layer: int, generator: Generator | None):
        width, n_head, n_kv_head = config.head_dim, config.num_attention_heads, config.num_key_value_heads
        std = config.initializer_range
        self.layer, self.n_head, self.n_kv_head = layer, n_head, n_kv_head
        self.window, self.attention_dropout = config.window(layer), config.attention_dropout
        self.q_proj = nn.Linear(config.hidden_size, n_head * width, config.attention_bias, generator, std)
        self.k_proj = nn.Linear(config.hidden_size, n_kv_head * width, config.attention_bias, generator, std)
        self.v_proj = nn.Linear(config.hidden_size, n_kv_head * width, config.attention_bias, generator, std)
        self.o_proj = nn.Linear(n_head * width, config.hidden_size, config.has_output_bias, generator, std)

    def forward(self, x, rotary: tuple, mask: dict, cache: KeyValueCache | None, attentions: list | None):
        q, k, v = nn.project_together(x, self.q_proj, self.k_proj, self.v_proj)
        q = ops.rotary_embedding(ops.split_heads(q, self.n_head), *rotary)
        k = ops.rotary_embedding(ops.split_heads(k, self.n_kv_head), *rotary)
        v = ops.split_heads(v, self.n_kv_head)
        seen = {"causal": True, "window": self.window, **mask}
        if cache is not None:
            k, v, seen = cache.attend(self.layer, k, v, seen)
        if attentions is not None:
            attentions.append(ops.attention_weights(q, k, **seen))
        dropout = self.attention_dropout if self.training else 0.0
        return self.o_proj(ops.join_heads(ops.scaled_dot_product_attention(q, k, v, dropout_p=dropout, **seen)))


class MLP(nn.Module):
    """The gated position-wise network: down_proj(act(gate_proj(x)) * up_proj(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig, generator: Generator | None):
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.gate_proj = nn.Linear(width, inner, config.mlp_bias, generator, std)
        self.up_proj = nn.Linear(width, inner, config.mlp_bias, generator, std)
        self.down_proj = nn.Linear(inner, width, config.mlp_bias, generator, std)
        self.act = nn.activation(config.hidden_act)

    def forward(self, x):
        gate, up = nn.project_together(x, self.gate_proj, self.up_proj)
        return self.down_proj(ops.swiglu(gate, up) if self.act is ops.silu else self.act(gate) * up)


class DecoderLayer(nn.Layer):
    """Attention, then the MLP, each on normalised input and added to the residual stream x."""

    def __init__(self, config: LlamaConfig, layer: int, generator: Generator | None):
        self.self_attn = Attention(config, layer, generator)
        self.mlp = MLP(config, generator)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, narrow=True)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, narrow=True)

    def forward(self, x, rotary: tuple, mask: dict, cache: KeyValueCache | None, attentions: list | None):
        return self.part("block", self._forward, x, rotary, mask, cache, attentions)

    def _forward(self, x, *rest):
        attended = self.part("attention", self._attend, x, *rest)
        y, x = self.post_attention_layernorm(attended, residual=x)
        return x + self.mlp(y)

    def _attend(self, x, *rest):
        return self.self_attn(self.input_layernorm(x), *rest)


class Transformer(nn.Module):
    """Token ids to hidden states: embeddings, the layers, a last norm."""

    def __init__(self, config: LlamaConfig, generator: Generator | None):
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.initializer_range, generator)
        self.layers = nn.ModuleList(DecoderLayer(config, i, generator) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(CausalLM):
    """Llama with its language-model head.

    >>> import numpy as np
    >>> config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
    ...     num_attention_heads=4, num_key_value_heads=2)
    >>> model = Llama(config).eval()
    >>> ids = np.array([[1, 2, 3, 4]])
    >>> model(ids).logits.shape, model(ids, labels=ids).loss.shape
    ((1, 4, 50), ())
    """

    config_class = LlamaConfig
    architecture = "LlamaForCausalLM"
    base_prefix = "model."

    def __init__(self, config: LlamaConfig, generator: Generator | None = None):
        self.config = config
        self.model = Transformer(config, generator)
        if not config.tie_word_embeddings:
            std = config.initializer_range
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, False, generator, std)

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

        `targets` (B, T) are aligned with the logits, `labels` with `input_ids`: each is predicted one place before it;
        -100 is ignored. `attention_mask` (B, S) is 1 for real tokens and 0 for padding, over the cached tokens too;
        positions count real tokens only, unless `position_ids` (B, T) or (T,) are given. `cache` holds earlier tokens'
        keys and values and takes up these. `logits_to_keep` n > 0 computes the last n only. Raises ValueError for
        shapes that do not fit, or more tokens than `max_position_embeddings`.
        """
        ids, positions, mask = self._inputs(input_ids, attention_mask, position_ids, cache)
        x = self.model.embed_tokens(ids)
        rotary = self._rotary_tables(positions, x.dtype, ids.shape[1] + (0 if cache is None else len(cache)))
        states, attentions = [], [] if output_attentions else None
        watched = output_hidden_states or output_attentions
        stepped = (
            None if watched else step_through_layers(self.model, (DecoderLayer, Attention, MLP), x, rotary, mask, cache)
        )
        for layer in self.model.layers if stepped is None else ():
            states.append(x)
            x = layer(x, rotary, mask, cache, attentions)
        x = self.model.norm(x if stepped is None else stepped)
        head = self.model.embed_tokens.project if self.config.tie_word_embeddings else self.lm_head
        return self._output(
            x, head, targets, labels, logits_to_keep, (*states, x) if output_hidden_states else None,
            None if attentions is None else tuple(attentions),
        )  # fmt: skip

    @property
    def n_layer(self) -> int:
        """How many layers keep keys and values."""
        return self.config.num_hidden_layers

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer, how many keys a query sees, itself included; None for all."""
        return tuple(self.config.window(layer) for layer in range(self.n_layer))

    @property
    def max_length(self) -> int:
        """The most tokens, cached ones included, that the model can look at."""
        return self.config.max_position_embeddings

    def _rotary_tables(self, positions, dtype, length: int) -> tuple:
        """cos and sin, (T, D/2) or (B, T, D/2), of the angles at `positions`."""
        positions = to_device(positions, self.device)
        config, xp = self.config, array_module(positions)
        frequencies, factor = frequencies_on(
            device_of(positions), config.rope_parameters, config.head_dim, config.max_position_embeddings, length
        )
        angles = positions[..., None] * frequencies
        return (factor * xp.cos(angles)).astype(dtype), (factor * xp.sin(angles)).astype(dtype)

    def own_names(self, weights: dict) -> dict:
        """As the base class's, without the rotary tables that old files store; a tied head is the token embedding.

        Raises ValueError for a file with a head of its own where the config says that it is tied.
        """
        weights = {name: array for name, array in weights.items() if not name.endswith("rotary_emb.inv_freq")}
        return self._without_copy(super().own_names(weights), "model.embed_tokens.weight")


class Mistral(Llama):
    """Mistral: Llama with a sliding window.

    >>> import numpy as np
    >>> from minilm.models import MistralConfig
    >>> config = MistralConfig(vocab_size=11, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    ...                        num_attention_heads=4, num_key_value_heads=2, sliding_window=2)
    >>> Mistral(config)(np.array([[1, 2, 3]])).logits.shape
    (1, 3, 11)
    """

    config_class = MistralConfig
    architecture = "MistralForCausalLM"


class Qwen2(Llama):
    """Qwen2: Llama with a bias for q, k and v."""

    config_class = Qwen2Config
    architecture = "Qwen2ForCausalLM"
