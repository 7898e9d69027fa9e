"""The configs of Llama, Mistral and Qwen2, and in what the three differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from minilm import nn

from .pretrained import Config
from .rope import read_rope

__all__ = ["LlamaConfig", "MistralConfig", "Qwen2Config"]


@dataclass
class LlamaConfig(Config):
    """The shape of a Llama; the defaults are the first 7B model's.

    Rotary parameters are read in the new spelling, `rope_parameters`, and in the old, `rope_theta` and `rope_scaling`.
    Raises ValueError for sizes that do not fit, and for kinds of activation and rotary embedding that are not known.

    >>> config = LlamaConfig(hidden_size=64, num_attention_heads=8, num_key_value_heads=2)
    >>> config.head_dim, config.rope_parameters["rope_theta"]
    (8, 10000.0)
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
        self._check_counts(
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings",
        )  # fmt: skip
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
    """Mistral (Jiang et al. 2023, arXiv:2310.06825): each token sees the last `sliding_window` tokens only.

    >>> MistralConfig(sliding_window=1024).window(layer=0)
    1024
    """

    num_key_value_heads: int | None = 8
    intermediate_size: int = 14336
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096

    model_type = "mistral"

    def window(self, layer: int) -> int | None:
        return self.sliding_window


@dataclass
class Qwen2Config(LlamaConfig):
    """Qwen2 (Yang et al. 2024, arXiv:2407.10671): q, k and v have a bias; from a layer on, the window may slide.

    >>> config = Qwen2Config(num_hidden_layers=4, use_sliding_window=True, max_window_layers=3)
    >>> [config.window(layer) for layer in range(4)]
    [None, None, None, 4096]
    """

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
