"""Tensor's operators and methods: the operations under NumPy's names for them."""

from __future__ import annotations

from minilm import backend
from minilm.autograd import Tensor

from . import activations, arithmetic, compare, elementwise, gathering, indexing, linalg, normalize, reductions, shape

_METHODS = {
    arithmetic: "clip maximum minimum",
    elementwise: "abs astype cos erf exp log log1p sin sqrt square tanh sign",
    activations: "gelu relu sigmoid silu softplus",
    compare: "all any argmax argmin argsort",
    reductions: "cumsum logsumexp max mean min prod std sum var",
    shape: "expand expand_dims flatten flip permute split squeeze swapaxes unsqueeze",
    gathering: "gather scatter_add sort topk",
    indexing: "repeat take tril triu",
    linalg: "matmul",
    normalize: "log_softmax softmax",
}

_OPERATORS = {
    "add": arithmetic.add,
    "sub": arithmetic.subtract,
    "mul": arithmetic.multiply,
    "truediv": arithmetic.divide,
    "pow": arithmetic.power,
    "matmul": linalg.matmul,
    "and": compare.bitwise_and,
    "or": compare.bitwise_or,
    "xor": compare.bitwise_xor,
}

_COMPARISONS = {
    "eq": compare.equal,
    "ne": compare.not_equal,
    "lt": compare.less,
    "le": compare.less_equal,
    "gt": compare.greater,
    "ge": compare.greater_equal,
}


def _method(name: str, function):
    def method(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"Tensor.{name}"
    method.__doc__ = function.__doc__
    return method


def _operator(function):
    def forward(self, other):
        return function(self, other)

    def reflected(self, other):
        return function(other, self)

    return forward, reflected


def _reshape(self, *lengths):
    """The elements in the same order in another shape, as several numbers or one tuple; one may be -1."""
    return shape.reshape(self, shape.as_tuple(lengths))


def _transpose(self, *axes):
    """The axes in the order given (none: reversed), as several numbers or one tuple."""
    if not axes or axes == (None,):
        return shape.transpose(self)
    return shape.permute(self, *axes)


def _to(self, target):
    """The tensor on another device ("cpu", "cuda") or in another dtype; gradients flow back through it.

    Raises RuntimeError, saying what is missing, for "cuda" where there is no GPU.
    """
    if target in ("cpu", "cuda"):
        return self if self.device == target else shape.to_device(self, target)
    try:
        dtype = backend.resolve_dtype(target)
    except TypeError as error:
        raise TypeError(f"to() takes a device, 'cpu' or 'cuda', or a dtype: {error}") from None
    return self if self.dtype == dtype else elementwise.astype(self, dtype)


def install() -> None:
    """Puts operators and methods on Tensor; runs once, when `minilm.ops` is imported."""
    for module, names in _METHODS.items():
        for name in names.split():
            setattr(Tensor, name, _method(name, getattr(module, name)))
    for name, function in _OPERATORS.items():
        forward, reflected = _operator(function)
        setattr(Tensor, f"__{name}__", forward)
        setattr(Tensor, f"__r{name}__", reflected)
    for name, function in _COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _operator(function)[0])
    Tensor.__hash__ = object.__hash__
    Tensor.__neg__ = lambda self: arithmetic.negative(self)
    Tensor.__abs__ = lambda self: elementwise.abs(self)
    Tensor.__invert__ = lambda self: compare.invert(self)
    Tensor.__getitem__ = lambda self, index: indexing.getitem(self, index)
    Tensor.reshape = Tensor.view = _reshape
    Tensor.transpose = _transpose
    Tensor.to = _to
