"""Layers whose weights stay quantised in memory, in GGUF's blocks; for running a model, not for training it."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Tensor, is_grad_enabled

from .module import Module

__all__ = ["QuantizedEmbedding", "QuantizedLinear"]


class QuantizedLinear(Module):
    """x @ weight.T + bias for a weight (out, in) in blocks: `blocks` is uint8 (out, bytes of a row).

    The formats are Q8_0, Q4_0 and Q4_1. Raises RuntimeError where x would need a gradient, which blocks do not give.
    """

    def __init__(self, blocks, format: str, bias=None):
        self.format = format
        self.register_buffer("blocks", blocks)
        self.bias = bias

    def forward(self, x, activation=None):
        y = _product(x, self.blocks.data, self.format)
        if self.bias is not None:
            y = y + self.bias
        return y if activation is None else activation(y)

    def extra_repr(self) -> str:
        return f"{self.blocks.shape[0]} rows of {self.format}, bias={self.bias is not None}"


class QuantizedEmbedding(Module):
    """A table (V, C) of rows in blocks, `blocks` uint8 (V, bytes of a row): rows become float32 when looked up."""

    def __init__(self, blocks, format: str):
        self.format = format
        self.register_buffer("blocks", blocks)

    def forward(self, indices):
        return Tensor(kernels.dequantize(self.blocks.data[indices], format=self.format))

    def project(self, x):
        """x @ weight.T, (..., C) to (..., V): the output layer of a model that shares it with this table."""
        return _product(x, self.blocks.data, self.format)

    def extra_repr(self) -> str:
        return f"{self.blocks.shape[0]} rows of {self.format}"


def _product(x, blocks, format: str) -> Tensor:
    if isinstance(x, Tensor) and x.requires_grad and is_grad_enabled():
        raise RuntimeError(
            "weights that stay quantised give no gradients; run the model under minilm.no_grad(), or load it with "
            'weights="fp32" to train it'
        )
    return Tensor(kernels.quantized_matmul(getattr(x, "_data", x), blocks, format=format))
