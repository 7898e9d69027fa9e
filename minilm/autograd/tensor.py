"""Tensor: an array, whether its gradient is wanted, and the place on the tape that it came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilm import backend

from .mode import state
from .numpy_calls import ArrayUfunc, array_function

__all__ = ["Tensor", "tensor"]

_RANK = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2}  # by the kind of a dtype: what holds the numbers of the lower ones


class Tensor:
    """A NumPy or CuPy array that remembers how it was computed, so that gradients can flow back through it.

    Operators and methods with NumPy's names (`x + y`, `x @ y`, `x[1:]`, `x.sum(axis=0)`, ...) are `minilm.ops`.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "_data", "_hooks", "_node", "_slot", "_version", "grad", "requires_grad")

    __array_ufunc__ = ArrayUfunc()
    __array_function__ = array_function
    __array_priority__ = 1000

    def __init__(self, data, requires_grad: bool = False) -> None:
        self._data = data
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self._node = None  # the operation that made it; None for a leaf
        self._slot = 0  # which of that operation's outputs it is
        self._version = [0]  # counts changes in place; views share their base's
        self._hooks = None
        if requires_grad:
            _check_differentiable(data)

    @property
    def data(self):
        """The raw array. Assigning another one counts as a change in place."""
        return self._data

    @data.setter
    def data(self, array) -> None:
        if isinstance(array, Tensor):
            raise TypeError("data takes a raw array, not a Tensor; assign tensor.data")
        self._data = array
        self.bump_version()

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype:
        """The elements' dtype."""
        return self._data.dtype

    @property
    def device(self) -> str:
        """`"cpu"` or `"cuda"`."""
        return backend.device_of(self._data)

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that no recorded operation made: its gradient is kept in `.grad`."""
        return self._node is None

    @property
    def T(self):
        """All axes in reverse order."""
        return self.transpose()

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array; on the CPU it shares memory with the tensor."""
        return backend.to_numpy(self._data)

    def item(self) -> float | int | bool:
        """The only element as a Python number; ValueError if there are more."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor with one element; this one has shape {self.shape}")
        return self._data.item()

    def tolist(self):
        """The values as nested Python lists."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """A tensor with the same memory and no history."""
        out = Tensor(self._data)
        out._version = self._version
        return out

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets `requires_grad` on a leaf, and returns it."""
        if not self.is_leaf:
            raise ValueError("requires_grad can only be set on a leaf; call detach() first to start a new graph here")
        if requires_grad:
            _check_differentiable(self._data)
        self.requires_grad = requires_grad
        return self

    def backward(self, gradient=None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Adds the gradient of this tensor to `.grad` of every leaf that it was computed from.

        `gradient` (same shape) weighs the elements; it may be left out for a tensor with one element. The graph is
        freed as it is walked unless `retain_graph`; `create_graph` records the walk itself, for higher derivatives.
        """
        from .engine import backward

        backward(self, gradient, retain_graph=retain_graph, create_graph=create_graph)

    def register_hook(self, hook: Callable) -> Callable[[], None]:
        """Calls `hook(gradient)` once the whole gradient of this tensor is known; what it returns replaces it.

        Hook and return value deal in Tensors; a hook that returns None leaves the gradient as it is. Returns a
        function that takes the hook off again.
        """
        if not self.requires_grad:
            raise ValueError("a gradient hook needs a tensor that requires a gradient")
        if self._node is None:
            self._hooks = hooks = self._hooks if self._hooks is not None else []
        else:
            hooks = self._node.hooks_of(self._slot)
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    def retain_grad(self) -> None:
        """Keeps the gradient of this non-leaf in `.grad` as well."""
        if not self.is_leaf:
            import weakref

            reference = weakref.ref(self)  # the hook lives on the node; it must not keep the tensor alive

            def keep(gradient: Tensor) -> None:
                tensor = reference()
                if tensor is not None:
                    # A copy: the engine's array may be a read-only view, or other tensors' gradient as well.
                    gradient = gradient if gradient.requires_grad else Tensor(gradient._data.copy())
                    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

            self.register_hook(keep)

    def zero_grad(self) -> None:
        """Forgets the gradient."""
        self.grad = None

    # Changes in place. The version tells every graph that kept the old values that they are gone.

    def bump_version(self) -> None:
        """Tells the tape that the array was changed in place (for code that writes to `.data` itself)."""
        self._version[0] += 1

    def copy_(self, value) -> Tensor:
        """Overwrites all values by `value`, broadcast; only where nothing is recorded."""
        return self._write(..., value, "copy_")

    def fill_(self, value: float) -> Tensor:
        """Overwrites every element by one number; only where nothing is recorded."""
        return self._write(..., value, "fill_")

    def zero_(self) -> Tensor:
        """Overwrites every element by zero; only where nothing is recorded."""
        return self._write(..., 0, "zero_")

    def add_(self, value) -> Tensor:
        """Adds `value` in place; only where nothing is recorded. TypeError for fractions added to integers."""
        return self._write(..., self._fitting("add_", self._data + self._beside(value)), "add_")

    def mul_(self, value) -> Tensor:
        """Multiplies by `value` in place; only where nothing is recorded. TypeError for integers times fractions."""
        return self._write(..., self._fitting("mul_", self._data * self._beside(value)), "mul_")

    def __setitem__(self, index, value) -> None:
        self._write(index, value, "assignment to an element")

    def _write(self, index, value, what: str) -> Tensor:
        if state.recording and (self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)):
            raise RuntimeError(
                f"{what} changes a tensor in place, which the tape does not record; put it under minilm.no_grad(), "
                "or compute a new tensor with ops.where, ops.concatenate or ops.scatter_add"
            )
        self._data[_raw_index(index)] = self._beside(value)
        self.bump_version()
        return self

    def _fitting(self, what: str, array):
        """A result that is to take this tensor's place: not floats where it has integers, which would cut them off."""
        if _RANK[array.dtype.kind] > _RANK[self.dtype.kind]:
            raise TypeError(
                f"{what} makes {array.dtype} of this tensor of {self.dtype}, which can't hold it; compute a new one, "
                f"or convert this with .to({array.dtype.name!r}) before"
            )
        return array

    def _beside(self, value):
        """A value to compute with: a list's numbers go where the tensor is."""
        if not isinstance(value, (list, tuple)):
            return _raw(value)
        return backend.as_array(value, self.dtype if self.dtype.kind in "fV" else None, self.device)

    # What Python asks of an object.

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; use .data.any() or .data.all()"
            )
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only integer tensors can be an index; this one is {self.dtype}")
        return int(self.item())

    __hash__ = object.__hash__

    def __deepcopy__(self, memo) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("only leaf tensors can be deep-copied; call detach() first")
        out = type(self)(self._data.copy(), self.requires_grad)
        out.grad = None if self.grad is None else Tensor(self.grad._data.copy())
        memo[id(self)] = out
        return out

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=100)
        notes = [text]
        if self.dtype.name not in ("float32", "int64", "bool"):
            notes.append(f"dtype={self.dtype.name}")
        if self.device != "cpu":
            notes.append(f"device={self.device!r}")
        if self._node is not None:
            notes.append(f"made by {self._node.operation.name}")
        elif self.requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({', '.join(notes)})"


def tensor(array, requires_grad: bool = False, dtype=None, device: str | None = None) -> Tensor:
    """A tensor of `array`'s values (array, tensor, number or nested list); it shares memory where it can.

    Python floats become float32; arrays keep their dtype unless `dtype` says otherwise. Raises RuntimeError for
    `device="cuda"` where there is no GPU, TypeError for `requires_grad` on integers.

    >>> tensor([1.0, 2.0]).dtype.name, tensor([1, 2]).dtype.name
    ('float32', 'int64')
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.numpy().tolist()
    [2.0, 4.0]
    """
    data = backend.as_array(_raw(array), dtype, device)
    if data.dtype.kind not in "fiubV":
        raise TypeError(f"a tensor holds numbers or booleans; {type(array).__name__} became an array of {data.dtype}")
    out = Tensor(data, requires_grad)
    if isinstance(array, Tensor) and data is array._data:
        out._version = array._version
    return out


def _raw(value):
    return value._data if isinstance(value, Tensor) else value


def _raw_index(index):
    if isinstance(index, tuple):
        return tuple(_raw(part) for part in index)
    return _raw(index)


def _check_differentiable(array) -> None:
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"only floating-point tensors can require a gradient; this one is {array.dtype}")
