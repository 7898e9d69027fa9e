"""What models return: their names are transformers'."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.autograd import Tensor

__all__ = ["CausalLMOutput", "EncoderOutput", "HeadOutput"]


@dataclass
class CausalLMOutput:
    """Of a language model: logits (B, T, V), and the loss where targets were given.

    On request the hidden states (B, T, C) before, between and after the layers, and each layer's attention weights
    (B, H, T, S).
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class EncoderOutput:
    """Of an encoder: hidden states (B, T, C) after its last layer; of a model with a pooler its output (B, C) too."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class HeadOutput:
    """Of a model with a head that classifies texts or tokens: its logits, and the loss where labels were given."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
