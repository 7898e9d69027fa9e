"""Layers whose weights stay quantised in memory, in GGUF's blocks; for running a model, not for training it."""

from __future__ import annotations

import minilm_kernels as kernels
import numpy as np
from minilm_kernels.portable import check_range

from minilm.autograd import Tensor, is_grad_enabled

from .module import Module

__all__ = ["QuantizedEmbedding", "QuantizedLinear", "project_together"]


class QuantizedLinear(Module):
    """x @ weight.T + bias for a weight (out, in) in blocks: `blocks` is uint8 (out, bytes of a row).

    The formats are Q8_0, Q4_0 and Q4_1. Raises RuntimeError where x would need a gradient, which blocks do not give.

    >>> weight = np.linspace(-1, 1, 4 * 32, dtype=np.float32).reshape(4, 32)
    >>> layer = QuantizedLinear(kernels.quantize(weight, format="Q8_0"), "Q8_0")
    >>> layer(np.ones((2, 32), np.float32)).shape, layer.blocks.data.nbytes, weight.nbytes
    ((2, 4), 136, 512)
    """

    def __init__(self, blocks, format: str, bias=None):
        self.format = format
        self.register_buffer("blocks", blocks)
        self.bias = bias

    def forward(self, x, activation=None):
        return self._finish(_product(x, self.blocks.data, self.format), activation)

    def _finish(self, y, activation=None):
        if self.bias is not None:
            y = y + self.bias
        return y if activation is None else activation(y)

    def extra_repr(self) -> str:
        return f"{self.blocks.shape[0]} rows of {self.format}, bias={self.bias is not None}"


class QuantizedEmbedding(Module):
    """A table (V, C) of rows in blocks, `blocks` uint8 (V, bytes of a row): rows become float32 when looked up.

    >>> table = np.linspace(-1, 1, 4 * 32, dtype=np.float32).reshape(4, 32)
    >>> layer = QuantizedEmbedding(kernels.quantize(table, format="Q8_0"), "Q8_0")
    >>> layer(np.array([[3, 0]])).shape
    (1, 2, 32)
    """

    def __init__(self, blocks, format: str):
        self.format = format
        self.register_buffer("blocks", blocks)

    def forward(self, indices):
        indices, blocks = getattr(indices, "_data", indices), self.blocks.data
        rows = len(blocks)
        check_range(indices, rows, lambda _, i: IndexError(f"index {i} is outside the table's rows, 0..{rows - 1}"))
        return Tensor(kernels.dequantize(blocks[indices], format=self.format))

    def project(self, x):
        """x @ weight.T, (..., C) to (..., V): the output layer of a model that shares it with this table."""
        return _product(x, self.blocks.data, self.format)

    def extra_repr(self) -> str:
        return f"{self.blocks.shape[0]} rows of {self.format}"


def project_together(x, *layers) -> tuple:
    """`tuple(layer(x) for layer in layers)`; of quantised layers of one format in one product.

    Decoding multiplies one row by many small matrices, where starting a product takes as long as half of it. At the
    first call the blocks of such layers are laid one after another in memory; each layer's own become a part of that.

    >>> from minilm import nn
    >>> q, k = project_together(np.ones((1, 8), np.float32), nn.Linear(8, 8), nn.Linear(8, 2))
    >>> q.shape, k.shape
    ((1, 8), (1, 2))
    """
    if not all(type(layer) is QuantizedLinear and "_forward_hooks" not in layer.__dict__ for layer in layers):
        return tuple(layer(x) for layer in layers)
    parts = [layer.blocks.data for layer in layers]
    whole = parts[0].base
    if not _are_together(whole, parts):
        if len({layer.format for layer in layers}) > 1 or not isinstance(parts[0], np.ndarray):
            return tuple(layer(x) for layer in layers)
        whole, start = np.concatenate(parts), 0
        for layer, part in zip(layers, parts):
            layer.blocks = Tensor(whole[start : start + len(part)])
            start += len(part)
    y, start, found = _product(x, whole, layers[0].format).data, 0, []
    for layer, part in zip(layers, parts):
        found.append(layer._finish(Tensor(y[..., start : start + len(part)])))
        start += len(part)
    return tuple(found)


def _are_together(whole, parts: list) -> bool:
    """Whether the parts are all that `whole` consists of, in this order."""
    if not isinstance(whole, np.ndarray) or whole.dtype != parts[0].dtype or whole.ndim != 2:
        return False
    return len(whole) == sum(map(len, parts)) and all(part.base is whole for part in parts)


def _product(x, blocks, format: str) -> Tensor:
    if isinstance(x, Tensor) and x.requires_grad and is_grad_enabled():
        raise RuntimeError(
            "weights that stay quantised give no gradients; run the model under minilm.no_grad(), or load it with "
            'weights="fp32" to train it'
        )
    return Tensor(kernels.quantized_matmul(getattr(x, "_data", x), blocks, format=format))
