"""What becomes of a tensor that NumPy's operators and functions meet."""

from __future__ import annotations

import sys

from .mode import state

__all__ = ["ArrayUfunc", "array_function"]

# What an array asks NumPy for where it stands left of an operator, and the tensor's method for that.
_REFLECTED = {
    "add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "divide": "__rtruediv__", "power": "__rpow__",
    "matmul": "__rmatmul__", "bitwise_and": "__rand__", "bitwise_or": "__ror__", "bitwise_xor": "__rxor__",
    "equal": "__eq__", "not_equal": "__ne__", "less": "__gt__", "less_equal": "__ge__", "greater": "__lt__",
    "greater_equal": "__le__",
}  # fmt: skip


class ArrayUfunc:
    """Tensor's `__array_ufunc__`: `array * tensor` is the tensor's business, `np.exp(tensor)` an error that helps.

    None would make it NumPy's error, which does not say what to do. NumPy asks the class; CuPy asks the tensor, and
    leaves an operator to it where it finds None.
    """

    def __get__(self, tensor, owner):
        return None if tensor is not None else _array_ufunc


def _array_ufunc(tensor, ufunc, method: str, *inputs, **settings):
    reflected = _REFLECTED.get(ufunc.__name__)
    if reflected is not None and method == "__call__" and not settings and not isinstance(inputs[0], type(tensor)):
        return getattr(tensor, reflected)(inputs[0])
    if "out" in settings:
        raise TypeError(f"np.{ufunc.__name__} can't write a tensor into an array; write `a = a + t` for `a += t`")
    suffix = "" if method == "__call__" else f".{method}"
    raise _refused(f"{ufunc.__name__}{suffix}", "takes arrays only")


def array_function(tensor, function, types, args: tuple, settings: dict):
    """Tensor's `__array_function__`: `np.concatenate([tensor, ...])` gives an array, unless that loses a gradient."""
    found = [part for value in args for part in (value if isinstance(value, (list, tuple)) else (value,))]
    wanted = state.recording and any(getattr(value, "requires_grad", False) for value in found)
    if wanted and _has_twin(function.__name__):
        raise _refused(function.__name__, "would lose the gradient")
    return function._implementation(*[_plain(value, type(tensor)) for value in args], **settings)


def _plain(value, tensors: type):
    """An argument with arrays in the place of tensors: NumPy would call their methods, with its own arguments."""
    if isinstance(value, (list, tuple)) and any(isinstance(part, tensors) for part in value):
        return type(value)(part.numpy() if isinstance(part, tensors) else part for part in value)
    return value.numpy() if isinstance(value, tensors) else value


def _has_twin(name: str) -> bool:
    return callable(getattr(sys.modules.get("minilm.ops"), name, None))


def _refused(name: str, why: str) -> TypeError:
    use = f"minilm.ops.{name}" if _has_twin(name) else "a function of minilm.ops"
    return TypeError(f"np.{name} {why}; use {use}, or the tensor's .data where no gradient is wanted")
