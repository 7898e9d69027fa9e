"""What models return."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.autograd import Tensor

__all__ = ["CausalLMOutput"]


@dataclass
class CausalLMOutput:
    """Of a language model: logits (B, T, V), and the loss where targets were given."""

    logits: Tensor
    loss: Tensor | None = None
