"""The operators of CuPy's ndarray; importing this puts them on the class."""

from __future__ import annotations

import numpy as np

from .arrays import function_named, ndarray


def _reflects(other) -> bool:
    """Whether the operation is the other operand's business, a Tensor's say."""
    return getattr(other, "__array_ufunc__", other) is None


def _binary(name: str):
    def forward(self, other):
        return NotImplemented if _reflects(other) else function_named(name)(self, other)

    def reflected(self, other):
        return NotImplemented if _reflects(other) else function_named(name)(other, self)

    def in_place(self, other):
        return function_named(name)(self, other, out=self)

    return forward, reflected, in_place


def _comparison(name: str):
    def compare(self, other):
        if _reflects(other):
            return NotImplemented
        if other is None:
            return ndarray(np.full(self.shape, name == "not_equal"))
        if isinstance(other, np.ndarray) and other.ndim == 0:
            other = other.item()
        return function_named(name)(self, other)

    return compare


def _power(self, other):
    if type(other) in (int, float) and other == 2 and self.dtype.kind in "fi":
        return function_named("square")(self)
    return NotImplemented if _reflects(other) else function_named("power")(self, other)


for _name, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "lshift": "left_shift", "rshift": "right_shift", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "matmul": "matmul", "rpow": "power",
}.items():  # fmt: skip
    _forward, _reflected, _in_place = _binary(_ufunc)
    if _name == "rpow":
        ndarray.__rpow__ = _reflected
        continue
    setattr(ndarray, f"__{_name}__", _forward)
    setattr(ndarray, f"__r{_name}__", _reflected)
    if _name != "matmul":
        setattr(ndarray, f"__i{_name}__", _in_place)
for _name, _ufunc in {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _comparison(_ufunc))
ndarray.__neg__ = lambda self: function_named("negative")(self)
ndarray.__pos__ = lambda self: self.copy()
ndarray.__abs__ = lambda self: function_named("absolute")(self)
ndarray.__invert__ = lambda self: function_named("invert")(self)
ndarray.__pow__ = _power
