"""The nonlinearities of neural networks."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Array, Tensor, op
from minilm.backend import array_module

from .elementwise import by_kernel, erf, tanh
from .linalg import sum_of_rows

__all__ = ["gelu", "relu", "sigmoid", "silu", "softplus", "swiglu"]


@op
def sigmoid(x: Array):
    """1 / (1 + exp(-x))

    >>> import numpy as np
    >>> sigmoid(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [0.2689, 0.5, 0.7311]
    """
    return by_kernel("sigmoid", x)


@sigmoid.gradient
def _(g, y):
    return g * y * (1 - y) if isinstance(g, Tensor) else kernels.elementwise_backward(g, y, function="sigmoid")


@op
def relu(x: Array):
    """max(x, 0), with slope 0 at 0.

    >>> import minilm
    >>> x = minilm.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> y = relu(x)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    """
    return by_kernel("relu", x) if x.dtype.kind in "fV" else array_module(x).maximum(x, 0)


@relu.gradient
def _(g, y):
    return g * (y > 0) if isinstance(g, Tensor) else kernels.elementwise_backward(g, y, function="relu")


@op
def silu(x: Array):
    """x sigmoid(x), also called swish (Ramachandran et al. 2017, https://arxiv.org/abs/1710.05941).

    >>> import numpy as np
    >>> silu(np.array([0.0, 1.0])).round(4).tolist()
    [0.0, 0.7311]
    """
    return by_kernel("silu", x)


@silu.gradient
def _(g, x):
    if isinstance(g, Tensor):
        s = sigmoid(x)
        return g * s * (1 + x * (1 - s))
    return kernels.elementwise_backward(g, x, function="silu")


@op(precision="float32")
def softplus(x: Array):
    """log(1 + exp(x)), without overflow.

    >>> import numpy as np
    >>> softplus(np.array([-1000.0, 0.0, 1000.0])).round(4).tolist()
    [0.0, 0.6931, 1000.0]
    """
    xp = array_module(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


@softplus.gradient
def _(g, x):
    return g * sigmoid(x)


@op(precision="first")
def gelu(x: Array, bias: Array = None, approximate="none"):
    """x Phi(x), Phi the normal distribution's: by erf ("none"), or by GPT-2's tanh formula ("tanh").

    With a bias (C,), that of x + bias in one pass: `gelu(linear(x, weight), bias)` is a layer's activation. Hendrycks
    and Gimpel 2016, https://arxiv.org/abs/1606.08415.

    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0], np.float32)).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    return kernels.gelu(x, bias, approximate=approximate)


@gelu.gradient
def _(g, x, bias, approximate, needs):
    dx = kernels.gelu_backward(g, x, bias, approximate=approximate)
    return dx, sum_of_rows(dx) if needs[1] else None


@gelu.composition
def _(x, bias, approximate):
    x = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x**3)))  # sqrt(2 / pi)
    return 0.5 * x * (1 + erf(x * 0.7071067811865476))


@op(precision="first")
def swiglu(gate: Array, up: Array):
    """silu(gate) * up, the gated linear unit of LLaMA's feed-forward layers (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    gate and up have one shape.

    >>> import numpy as np
    >>> swiglu(np.array([0.0, 1.0], np.float32), np.array([5.0, 2.0], np.float32)).round(4)
    array([0.    , 1.4621], dtype=float32)
    """
    return kernels.swiglu(gate, up)


@swiglu.gradient
def _(g, gate, up):
    return kernels.swiglu_backward(g, gate, up)


@swiglu.composition
def _(gate, up):
    return silu(gate) * up
