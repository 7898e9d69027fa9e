"""Adding gradients up: in the input's shape and dtype, in place where nobody else can see the array."""

from __future__ import annotations

from .operation import Operation, as_array
from .placed import Placed
from .tensor import Tensor

__all__ = ["Sum", "contribute", "fit_to_input", "is_aliased"]


class Sum:
    """A gradient that contributions are added to; `owned` says that nobody else can see the array."""

    __slots__ = ("array", "owned")

    def __init__(self, array, owned: bool) -> None:
        self.array = array
        self.owned = owned

    def add(self, array) -> None:
        if isinstance(array, Placed):
            if not self.owned:
                self.array, self.owned = self.array.copy(), True
            array.add_to(self.array)
        elif self.owned and self.array.dtype == array.dtype:
            self.array += array
        else:
            self.array, self.owned = as_array(self.array + array), True

    def own(self):
        """The array, contiguous and nobody else's: a gradient that is handed out, once or twice, may be written to."""
        owned, self.owned = self.owned, False
        return self.array if owned and self.array.flags.c_contiguous else self.array.copy()


def contribute(sums: dict, key, gradient, owned: bool, create: bool) -> None:
    """Adds a gradient to what has come so far for `key`; `owned` says that nobody else can see its array."""
    total = sums.get(key)
    if create:
        gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
        sums[key] = gradient if total is None else total + gradient
    elif total is not None:
        total.add(gradient)
    elif isinstance(gradient, Placed):
        sums[key] = Sum(gradient.dense(), True)
    else:
        sums[key] = Sum(gradient, owned)


def fit_to_input(operation: Operation, position: int, gradient, shape: tuple, dtype):
    """The gradient of an input in its shape and dtype: broadcasting undone, or an error that says what is off."""
    given = getattr(gradient, "dtype", None)
    if given is dtype and gradient.shape == shape and shape != ():
        return gradient  # nearly always
    if given is None:
        raise TypeError(
            f"the gradient rule of {operation.name} returned a {type(gradient).__name__} for an input of shape "
            f"{shape}; return an array of that shape"
        )
    gradient = as_array(gradient)
    if gradient.shape == shape and gradient.dtype == dtype:
        return gradient
    if not isinstance(gradient, Placed) and gradient.shape != shape:
        gradient = _unbroadcast(operation, position, gradient, shape)
    if gradient.dtype != dtype:
        if gradient.dtype.kind not in "f" and gradient.dtype.name != "bfloat16":
            raise TypeError(f"the gradient rule of {operation.name} returned {gradient.dtype} for an input of {dtype}")
        gradient = gradient.astype(dtype)
    return gradient


def _unbroadcast(operation: Operation, position: int, gradient, shape: tuple):
    """Sums `gradient` over the axes along which an input of `shape` was repeated."""
    extra = len(gradient.shape) - len(shape)
    inner = gradient.shape[max(extra, 0) :]
    if extra < 0 or any(want not in (1, have) for want, have in zip(shape, inner)):
        name = operation.inputs[0 if operation.variadic else position]
        raise ValueError(
            f"the gradient rule of {operation.name} returned shape {gradient.shape} for its input {name!r}, which has "
            f"shape {shape}; a gradient has its input's shape, or one that it broadcasts to"
        )
    axes = tuple(range(extra)) + tuple(
        extra + i for i, (want, have) in enumerate(zip(shape, inner)) if want == 1 and have != 1
    )
    if not axes:
        return gradient.reshape(shape)
    if gradient.dtype.itemsize == 2 and not isinstance(gradient, Tensor):  # in 16 bits a sum of ones ends at 256
        return gradient.sum(axis=axes, dtype="float32").reshape(shape)
    return gradient.sum(axis=axes).reshape(shape)


def is_aliased(result, g, kept: dict, others: list) -> bool:
    """Whether somebody else may see this array: it is `g`, or a view, was kept for the rule or is one of `others`."""
    if isinstance(result, (Tensor, Placed)):
        return False
    if getattr(result, "base", None) is not None or result is g:
        return True
    for group in (others, kept.values(), g if isinstance(g, tuple) else ()):
        for value in group:
            if result is value or (isinstance(value, Tensor) and result is value._data):
                return True
    return False
