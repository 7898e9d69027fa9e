"""Computing a part of the forward pass again in the backward pass, instead of keeping what it would need."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minilm import backend

from .arguments import Array
from .autocast import autocast, get_autocast_dtype
from .engine import grad, recorded_by
from .mode import enable_grad, is_grad_enabled, no_grad
from .operation import Node, op
from .placed import Placed
from .tensor import Tensor

__all__ = ["kept_bytes", "recompute"]


def recompute(function: Callable, *inputs: Tensor, parameters: Iterable[Tensor] = ()):
    """function(*inputs), of which the tape keeps the inputs alone: the backward pass computes the rest a second time.

    Memory for time (Chen et al. 2016, https://arxiv.org/abs/1604.06174). `function` takes the Tensors `inputs` and
    returns a Tensor or a tuple of them; `parameters` are all others that it uses and that require a gradient. It is run
    the second time with the same random numbers and precision, so gradients are the same bits as without; it must not
    depend on anything else that changes in between. TypeError for an input that is no Tensor; in the backward pass
    RuntimeError for a tensor that was used and is not named, and for `create_graph=True`.

    >>> import minilm
    >>> w = minilm.tensor([2.0], requires_grad=True)
    >>> x = minilm.tensor([3.0], requires_grad=True)
    >>> recompute(lambda x: (x * w) ** 2, x, parameters=[w]).backward()
    >>> x.grad, w.grad
    (tensor([24.]), tensor([36.]))
    """
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"input {i} of recompute is a {type(x).__name__}; expected a Tensor: bind other things")
    parameters = tuple(p for p in parameters if p.requires_grad)
    if not is_grad_enabled() or not any(x.requires_grad for x in (*inputs, *parameters)):
        return function(*inputs)
    return _recomputed(*inputs, *parameters, call=_Call(function, len(inputs), parameters))


class _Call:
    """A function, and all that its second run needs to be the same as its first."""

    def __init__(self, function: Callable, count: int, parameters: tuple[Tensor, ...]) -> None:
        self.function, self.count, self.parameters = function, count, parameters
        self.precision = get_autocast_dtype()
        self.draws = backend.Draws()

    def forward(self, arrays: tuple):
        with no_grad(), self.draws.recording():
            out = self.function(*(Tensor(array) for array in arrays[: self.count]))
        parts = out if isinstance(out, tuple) else (out,)
        if not all(isinstance(part, Tensor) for part in parts):
            raise TypeError(f"recompute's function returned {type(out).__name__}; expected a Tensor or a tuple of them")
        return tuple(part.data for part in out) if isinstance(out, tuple) else out.data

    def backward(self, g, arrays: tuple, needs: tuple[bool, ...]) -> list:
        inputs = [Tensor(array, need) for array, need in zip(arrays[: self.count], needs)]
        known = [*inputs, *self.parameters]
        with enable_grad(), autocast(self.precision), self.draws.again():
            out = self.function(*inputs)
        outs, gs = (out, g) if isinstance(out, tuple) else ((out,), (g,))
        reached = [(part, gradient) for part, gradient in zip(outs, gs) if part.requires_grad]
        self._check(reached, known)
        wanted = [x for x, need in zip(known, needs) if need]
        if not reached or not wanted:
            return [None] * len(needs)
        found = grad([part for part, _ in reached], wanted, [gradient for _, gradient in reached], allow_unused=True)
        results = iter(None if x is None else x.data for x in found)
        return [next(results) if need else None for need in needs]

    def _check(self, reached: list, known: list[Tensor]) -> None:
        names = {id(x) for x in known}
        for item in recorded_by([part for part, _ in reached]):
            if isinstance(item, Tensor) and id(item) not in names:
                raise RuntimeError(
                    f"recompute's function used a tensor of shape {item.shape} that requires a gradient and was not "
                    "given to it; name it among the inputs or the parameters"
                )


@op
def _recomputed(*tensors: Array, call):
    return call.forward(tensors)


@_recomputed.gradient
def _(g, tensors, needs, call):
    if any(isinstance(part, Tensor) for part in (g if isinstance(g, tuple) else (g,))):
        raise RuntimeError(
            "what recompute made has no second derivative; call its function directly where create_graph=True is wanted"
        )
    return call.backward(g, tensors, needs)


def kept_bytes(*outputs: Tensor) -> int:
    """How many bytes of arrays the tape behind `outputs` keeps for the backward pass, leaves' own not counted.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0], requires_grad=True)
    >>> kept_bytes((x * 2).exp().sum())
    8
    """
    items = recorded_by([x for x in outputs if x.requires_grad])
    leaves = {id(_memory(item.data)) for item in items if isinstance(item, Tensor)}
    found: dict[int, int] = {}
    for item in items:
        if isinstance(item, Node):
            for array in _arrays(tuple(item.kept.values())):
                memory = _memory(array)
                if id(memory) not in leaves:
                    found[id(memory)] = memory.nbytes
    return sum(found.values())


def _arrays(value):
    """All arrays in nested tuples, lists, Tensors and placed gradients."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, (Tensor, Placed)):
        yield value.data if isinstance(value, Tensor) else value.values
    elif hasattr(value, "nbytes") and getattr(value, "ndim", 0):
        yield value


def _memory(array):
    """The array whose memory a view looks at."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array
