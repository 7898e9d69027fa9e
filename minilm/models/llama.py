"""Llama (Touvron et al. 2023, arXiv:2302.13971), and Mistral and Qwen2, which differ from it by a config switch.

A decoder-only transformer with RMS norm before each part, rotary positions, a gated feed-forward layer and, in the
larger ones, several query heads to a key head. Weight names, shapes and config keys are transformers'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from minilm import nn, ops
from minilm.backend import Generator, array_module, device_of, to_device
from minilm.nn.cache import KeyValueCache

from .causal_lm import CausalLM
from .llama_step import step_through_layers
from .output import CausalLMOutput
from .pretrained import Config
from .rope import frequencies_on, read_rope

__all__ = ["Llama", "LlamaConfig", "Mistral", "MistralConfig", "Qwen2", "Qwen2Config"]


@dataclass
class LlamaConfig(Config):
    """The shape of a Llama; the defaults are the first 7B model's.

    Rotary parameters are read in the new spelling, `rope_parameters`, and in the old, `rope_theta` and `rope_scaling`.
    Raises ValueError for sizes that do not fit, and for kinds of activation and rotary embedding that are not known.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    rope_parameters: dict = field(default_factory=dict)
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = None

    model_type = "llama"
    refused = ("quantization_config",)

    def __post_init__(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                    f"({self.num_attention_heads}), where head_dim is not given"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, for rotary positions turn pairs; got {self.head_dim}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
        nn.activation(self.hidden_act)
        self.rope_parameters = read_rope({"rope_parameters": self.rope_parameters}, self.max_position_embeddings)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """As `Config.from_dict`; the old spelling of the rotary parameters is read as well."""
        length = values.get("max_position_embeddings") or cls.max_position_embeddings
        return super().from_dict({**values, "rope_parameters": read_rope(values, length)})

    # What the families differ in.

    @property
    def has_output_bias(self) -> bool:
        """Whether the projection after attention has a bias; the three before it have one by `attention_bias`."""
        return self.attention_bias

    def window(self, layer: int) -> int | None:
        """How many keys, itself included, a query of this layer sees; None for all."""
        return None


@dataclass
class MistralConfig(LlamaConfig):
    """Mistral (Jiang et al. 2023, arXiv:2310.06825): each token sees the last `sliding_window` tokens only."""

    num_key_value_heads: int | None = 8
    intermediate_size: int = 14336
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096

    model_type = "mistral"

    def window(self, layer: int) -> int | None:
        return self.sliding_window


@dataclass
class Qwen2Config(LlamaConfig):
    """Qwen2 (Yang et al. 2024, arXiv:2407.10671): q, k and v have a bias; from a layer on, the window may slide."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    attention_bias: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    model_type = "qwen2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.use_sliding_window:
            self.sliding_window = None
        if self.layer_types is None:
            self.layer_types = [
                "sliding_attention" if self.sliding_window and i >= self.max_window_layers else "full_attention"
                for i in range(self.num_hidden_layers)
            ]
        odd = set(self.layer_types) - {"full_attention", "sliding_attention"}
        if odd or len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types names each of the {self.num_hidden_layers} layers full_attention or sliding_attention; "
                f"got {self.layer_types}"
            )

    @property
    def has_output_bias(self) -> bool:
        return False

    def window(self, layer: int) -> int | None:
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None


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
    """Mistral: Llama with a sliding window."""

    config_class = MistralConfig
    architecture = "MistralForCausalLM"


class Qwen2(Llama):
    """Qwen2: Llama with a bias for q, k and v."""

    config_class = Qwen2Config
    architecture = "Qwen2ForCausalLM"
