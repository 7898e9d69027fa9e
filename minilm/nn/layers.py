"""The simple layers."""

from __future__ import annotations

from minilm import ops
from minilm.autograd import get_autocast_dtype
from minilm.backend import Generator

from . import init
from .module import Module

__all__ = [
    "ACTIVATIONS", "Conv1D", "Dropout", "Embedding", "FeedForward", "LayerNorm", "Linear", "RMSNorm", "activation",
]  # fmt: skip


def _gelu_tanh(x, bias=None):
    return ops.gelu(x, bias, approximate="tanh")


# The names that config files of the field use.
ACTIVATIONS = {
    "gelu": ops.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
}


def activation(name: str):
    """The activation function of that name. Raises ValueError listing the known names.

    >>> import numpy as np
    >>> activation("silu")(np.array([0.0, 1.0], np.float32)).round(4).tolist()
    [0.0, 0.7311000227928162]
    >>> activation("glu")
    Traceback (most recent call last):
    ...
    ValueError: no activation is named 'glu'; there are: gelu, ...
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation is named {name!r}; there are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _affine(x, weight, bias, layout: str, activation):
    """What Linear and Conv1D compute; GELU adds the bias in its own pass."""
    if bias is not None and activation in (ops.gelu, _gelu_tanh):
        return activation(ops.linear(x, weight, layout=layout), bias)
    y = ops.linear(x, weight, bias, layout=layout)
    return y if activation is None else activation(y)


class Linear(Module):
    """x @ weight.T + bias: x (..., in) to (..., out); weight (out, in), bias (out,) or None.

    Given an activation function, it returns that of the result: `linear(x, activation("gelu"))`. Weight and bias begin
    as torch's; with `std` the weight is normal and the bias zero, as the transformers of the field begin.

    >>> import numpy as np
    >>> Linear(3, 4)(np.ones((2, 5, 3), np.float32)).shape
    (2, 5, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        generator: Generator | None = None,
        std: float | None = None,
    ):
        self.in_features, self.out_features = in_features, out_features
        if std is None:
            self.weight = init.kaiming_uniform((out_features, in_features), in_features, generator)
            self.bias = init.kaiming_uniform((out_features,), in_features, generator) if bias else None
        else:
            self.weight = init.normal((out_features, in_features), std, generator)
            self.bias = init.zeros((out_features,)) if bias else None

    def forward(self, x, activation=None):
        return _affine(x, self.weight, self.bias, "oi", activation)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Conv1D(Module):
    """x @ weight + bias: a Linear whose weight is stored (in, out), as GPT-2's files have it.

    >>> import numpy as np
    >>> layer = Conv1D(3, 4)
    >>> layer.weight.shape, layer(np.ones((2, 3), np.float32)).shape
    ((3, 4), (2, 4))
    """

    def __init__(self, in_features: int, out_features: int, std: float = 0.02, generator: Generator | None = None):
        self.in_features, self.out_features = in_features, out_features
        self.weight = init.normal((in_features, out_features), std, generator)
        self.bias = init.zeros((out_features,))

    def forward(self, x, activation=None):
        return _affine(x, self.weight, self.bias, "io", activation)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class Embedding(Module):
    """weight[indices]: integer indices (...) to (..., C); weight (V, C).

    The row `padding_idx`, if given, begins as zeros and is not learnt here.

    >>> import numpy as np
    >>> Embedding(10, 4)(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        n_embeddings: int,
        d_model: int,
        std: float = 1.0,
        generator: Generator | None = None,
        padding_idx: int | None = None,
    ):
        self.weight = init.normal((n_embeddings, d_model), std, generator)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            if not 0 <= padding_idx < n_embeddings:
                raise ValueError(f"padding_idx is a row of the table, 0 to {n_embeddings - 1}; got {padding_idx}")
            self.weight.data[padding_idx] = 0

    def forward(self, indices):
        return ops.embedding(indices, self.weight, self.padding_idx)

    def project(self, x):
        """x @ weight.T, (..., C) to (..., V): the output layer of a model that shares it with this table.

        >>> import numpy as np
        >>> Embedding(10, 4).project(np.ones((2, 4), np.float32)).shape
        (2, 10)
        """
        return ops.linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis, of length C.

    Given a residual stream that x is to be added to, it does so in the same pass: norm(x, residual) is the pair
    (norm(residual + x), residual + x). With `narrow` the normalised result has, inside `autocast`, its dtype: where
    nothing but matrix products reads it, which would cast it, the same numbers in less memory.

    >>> import numpy as np
    >>> LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True, narrow: bool = False):
        self.eps, self.narrow = eps, narrow
        self.weight = init.ones((d_model,))
        self.bias = init.zeros((d_model,)) if bias else None

    def forward(self, x, residual=None):
        if residual is None:
            return ops.layer_norm(x, self.weight, self.bias, self.eps, _result_dtype(self, x))
        return ops.add_layer_norm(x, residual, self.weight, self.bias, self.eps, _result_dtype(self, x))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """x / sqrt(mean(x**2) + eps) * weight over the last axis, of length C; a residual and `narrow` as LayerNorm's.

    >>> import numpy as np
    >>> RMSNorm(2)(np.array([[3.0, -3.0]], np.float32)).numpy().round(3).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, d_model: int, eps: float = 1e-6, narrow: bool = False):
        self.eps, self.narrow = eps, narrow
        self.weight = init.ones((d_model,))

    def forward(self, x, residual=None):
        if residual is None:
            return ops.rms_norm(x, self.weight, self.eps, _result_dtype(self, x))
        return ops.add_rms_norm(x, residual, self.weight, self.eps, _result_dtype(self, x))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def _result_dtype(norm, x) -> str | None:
    """The dtype that a norm rounds its result to: autocast's, which leaves float64 alone, or None."""
    return get_autocast_dtype() if norm.narrow and x.dtype != "float64" else None


class Dropout(Module):
    """While training, zeroes each element with probability p and divides the others by 1 - p.

    >>> import numpy as np
    >>> from minilm.backend import Generator
    >>> layer = Dropout(0.5, Generator(0))
    >>> sorted(set(layer(np.ones(100, np.float32)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(np.ones(3, np.float32)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5, generator: Generator | None = None):
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout's p is a probability, from 0 to 1; got {p}")
        self.p = p
        self.generator = generator

    def forward(self, x):
        return ops.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class FeedForward(Module):
    """down_proj(activation(up_proj(x))): the transformer's position-wise network; d_hidden is 4 d_model by default.

    >>> import numpy as np
    >>> FeedForward(8)(np.ones((2, 5, 8), np.float32)).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        activation_function: str = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
        generator: Generator | None = None,
    ):
        d_hidden = 4 * d_model if d_hidden is None else d_hidden
        self.up_proj = Linear(d_model, d_hidden, bias, generator)
        self.act = activation(activation_function)
        self.down_proj = Linear(d_hidden, d_model, bias, generator)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.down_proj(self.up_proj(x, self.act)))
