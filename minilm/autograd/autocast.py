"""Mixed precision: inside `autocast`, inputs are cast before operations that are fast, or only exact, in one dtype."""

from __future__ import annotations

from contextlib import ContextDecorator

import numpy as np
from minilm_kernels.checks import is_half

from minilm import backend

from .arguments import Array
from .mode import state
from .operation import op
from .tensor import Tensor

__all__ = ["autocast", "get_autocast_dtype"]

_FLOAT32 = np.dtype(np.float32)


class autocast(ContextDecorator):
    """Inside it matrix products and attention compute in `dtype`, and norms, softmax, losses and sums in float32.

    `dtype` is "bfloat16", "float16", or None for no casts (inside another block, too). Each operation says what it
    wants (`op(precision=...)`); all others take what comes, float32 beside half precision giving float32. Parameters
    stay float32: a weight is cast at its first use, the copy serves until the weight changes or the block ends, and the
    gradient that comes back through it is float32 again. Of other inputs the last one's copy serves as well. float64 is
    left alone. Only the forward pass belongs inside; the backward pass runs in the dtypes that it left. Products are
    summed in float32 on every device. On the CPU half precision is computed in float32 and rounded: as on a GPU, but
    slower than float32 alone.

    (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740; torch.autocast is the model.)

    >>> import minilm
    >>> from minilm import ops
    >>> weight = minilm.tensor([[1.0, 2.0]], requires_grad=True)
    >>> with minilm.autocast("bfloat16"):
    ...     y = ops.linear(minilm.tensor([3.0, 4.0]), weight)
    >>> y.dtype.name
    'bfloat16'
    >>> y.backward()
    >>> weight.grad
    tensor([[3., 4.]])
    """

    def __init__(self, dtype="bfloat16") -> None:
        self.dtype = None if dtype is None else _low_precision(dtype)
        self._before: list[autocast | None] = []
        self._copies: dict[int, tuple[Tensor, int, Tensor]] = {}  # of a leaf: itself, its version, the cast
        self._latest: tuple[Tensor, int, Tensor] | None = None  # of what was cast last and is no leaf, likewise

    def __enter__(self) -> autocast:
        self._before.append(state.autocast)
        state.autocast = None if self.dtype is None else self
        return self

    def __exit__(self, *_) -> None:
        state.autocast = self._before.pop()
        if not self._before:
            self._copies.clear()
            self._latest = None

    def _recreate_cm(self) -> autocast:  # a decorated function may run in several threads at once
        return autocast(self.dtype)

    def inputs(self, precision: str, args: tuple) -> tuple:
        """An operation's inputs as its `precision` wants them; those of a call without a Tensor are left alone."""
        if not any(isinstance(x, Tensor) for x in args):
            return args
        if precision == "low":
            return tuple([self._cast(x, self.dtype) for x in args])
        if precision == "float32":
            return tuple([self._cast(x, _FLOAT32) for x in args])
        first = getattr(args[0], "dtype", None)
        return args if first is None else tuple([self._cast(x, first) for x in args])

    def _cast(self, x, dtype):
        given = getattr(x, "dtype", None)
        if given is None or given == dtype or not (given == _FLOAT32 or is_half(given)):
            return x
        if not isinstance(x, Tensor):
            return x.astype(dtype)
        is_weight = x._node is None and x.requires_grad and not is_half(given)
        entry = self._copies.get(id(x)) if is_weight else self._latest
        if entry is not None and _serves(entry, x, dtype):
            return entry[2]
        entry = x, x._version[0], _astype(x, dtype)
        if is_weight:
            self._copies[id(x)] = entry
        else:  # several products of one input, q, k and v say, come after each other
            self._latest = entry
        return entry[2]


def _serves(entry: tuple[Tensor, int, Tensor], x: Tensor, dtype) -> bool:
    """Whether an earlier cast is that of x to `dtype`, and takes gradients where they are wanted."""
    source, version, copy = entry
    if source is not x or version != x._version[0] or copy.dtype != dtype:
        return False
    return not state.recording or not x.requires_grad or (copy._node is not None and copy._node.kept is not None)


def _low_precision(dtype) -> np.dtype:
    """The dtype meant; ValueError for one that is none of the two, NumPy's "half" included: which of them is it?"""
    try:
        found = backend.resolve_dtype(dtype)
    except TypeError:
        found = None
    if found is None or not is_half(found) or (isinstance(dtype, str) and dtype != found.name):
        raise ValueError(f"autocast computes in 'bfloat16' or 'float16', or with None in float32; not in {dtype!r}")
    return found


def get_autocast_dtype() -> str | None:
    """The name of the dtype that `autocast` casts to here, or None outside of it.

    >>> with autocast("float16"):
    ...     get_autocast_dtype()
    'float16'
    """
    return None if state.autocast is None else state.autocast.dtype.name


@op
def _astype(x: Array, dtype):
    return x.astype(dtype)


@_astype.gradient
def _(g):
    return g  # the engine casts it to the input's dtype
