"""Gradients against finite differences: the test that every operation passes, and that users' own should."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minilm import backend

from .engine import grad
from .mode import no_grad
from .tensor import Tensor

__all__ = ["GradientError", "gradcheck", "gradgradcheck"]


class GradientError(AssertionError):
    """A gradient differs from the finite difference; the message says where and by how much.

    >>> import minilm
    >>> from minilm.autograd import Array, op
    >>> @op
    ... def square(x: Array):
    ...     return x * x
    >>> @square.gradient
    ... def _(g, x):
    ...     return g * x
    >>> gradcheck(square, minilm.tensor([3.0], dtype="float64", requires_grad=True))
    Traceback (most recent call last):
    ...
    minilm.autograd.gradcheck.GradientError: the gradient of square for input 0 is wrong ... computed ...
    """


def gradcheck(
    function: Callable, inputs, *more, eps: float = 1e-6, atol: float = 1e-6, rtol: float = 1e-4, seed: int = 0
) -> bool:
    """Checks `function`'s gradients by central differences, (f(x + eps) - f(x - eps)) / 2 eps; True or a GradientError.

    `inputs` is a tensor or a sequence of them, each in float64 (in float32 the differences are mostly rounding);
    those that require a gradient are checked, element by element. The outputs, one or several, are weighed by random
    numbers. A function that draws random numbers must draw the same ones at each call.

    >>> import minilm
    >>> x = minilm.tensor([[0.5, -1.0]], dtype="float64", requires_grad=True)
    >>> gradcheck(lambda x: minilm.ops.tanh(x), x)
    True
    """
    inputs, checked = _inputs("gradcheck", function, inputs, more)
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise TypeError(f"gradcheck needs float64 inputs, input {i} is {inputs[i].dtype}; use .to('float64')")
    outputs = _outputs(function, inputs)
    for i, y in enumerate(outputs):
        if y.dtype != np.float64:
            raise TypeError(f"the function makes output {i} {y.dtype} from float64 inputs; it must keep the dtype")
    random = backend.Generator(seed)
    weights = [random.normal(y.shape, dtype="float64", device=y.device) for y in outputs]
    analytic = grad(outputs, [inputs[i] for i in checked], weights, allow_unused=True)
    for i, found in zip(checked, analytic):
        numeric = _finite_differences(function, inputs, i, weights, eps)
        values = np.zeros(inputs[i].shape) if found is None else found.numpy()
        _compare(function, i, values, numeric, atol, rtol)
    return True


def gradgradcheck(
    function: Callable, inputs, *more, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, seed: int = 0
) -> bool:
    """Checks second derivatives: `gradcheck` of `function`'s gradient, in its inputs and in the output's gradient.

    Also that `create_graph=True` gives the gradient that it gives without: a composition is the fused operation's twin.

    >>> import minilm
    >>> gradgradcheck(minilm.ops.gelu, minilm.tensor([0.5, -1.0], dtype="float64", requires_grad=True))
    True
    """
    inputs, checked = _inputs("gradgradcheck", function, inputs, more)
    outputs = _outputs(function, inputs)
    random = backend.Generator(seed + 1)
    weights = [Tensor(random.normal(y.shape, dtype="float64", device=y.device), True) for y in outputs]

    def gradient(*values):
        given, weighing = list(values[: len(inputs)]), list(values[len(inputs) :])
        results = grad(
            _outputs(function, given), [given[i] for i in checked], weighing, create_graph=True, allow_unused=True
        )
        # A gradient that depends on nothing (that of a sum, say) has no derivative to check.
        return tuple(
            g if g is not None and g.requires_grad else Tensor(given[i].data * 0) for i, g in zip(checked, results)
        )

    plain = grad(outputs, [inputs[i] for i in checked], [w.data for w in weights], allow_unused=True)
    _same(function, checked, plain, gradient(*inputs, *weights))
    return gradcheck(gradient, [*inputs, *weights], eps=eps, atol=atol, rtol=rtol, seed=seed)


def _inputs(check: str, function: Callable, inputs, more: tuple) -> tuple[list, list[int]]:
    """The inputs, and which of them require a gradient; an error that shows the call meant, if this is none."""
    if not callable(function):
        raise TypeError(f"{check} takes a function and then its inputs; a {type(function).__name__} came first")
    if more:
        raise TypeError(
            f"{check} takes all inputs in one list and settings by name: {check}(function, [a, b], eps=1e-6)"
        )
    make = "minilm.tensor(x, dtype='float64', requires_grad=True)"
    if not isinstance(inputs, (Tensor, Iterable)) or isinstance(inputs, (np.ndarray, str)):
        raise TypeError(f"{check} got a {type(inputs).__name__}; expected a Tensor or a list of them: {make}")
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError(f"{check} needs an input that requires a gradient: {make}")
    return given, checked


def _same(function: Callable, checked: list[int], plain, recorded) -> None:
    """GradientError unless the gradients computed without and with a graph agree."""
    for i, one, other in zip(checked, plain, recorded):
        one = np.zeros(other.shape) if one is None else one.numpy()
        off = np.abs(one - other.numpy())
        if not (off <= 1e-8 + 1e-6 * np.abs(one)).all():
            raise GradientError(
                f"the gradient of {getattr(function, '__name__', function)!r} for input {i} is another one with "
                f"create_graph=True, off by up to {np.nanmax(off):.3g}: a rule or a composition forgets a part of it"
            )


def _outputs(function: Callable, inputs: list) -> list[Tensor]:
    out = function(*inputs)
    outputs = list(out) if isinstance(out, (tuple, list)) else [out]
    return [y for y in outputs if isinstance(y, Tensor) and y.requires_grad] or _no_output()


def _no_output():
    raise ValueError("the function has no output that requires a gradient; does it use its inputs?")


def _finite_differences(function: Callable, inputs: list, which: int, weights: list, eps: float) -> np.ndarray:
    base = inputs[which].numpy()
    numeric = np.zeros(base.shape)
    for place in np.ndindex(base.shape):
        sides = []
        for step in (eps, -eps):
            moved = base.copy()
            moved[place] += step
            shifted = Tensor(backend.to_device(moved, inputs[which].device), True)
            values = [*inputs[:which], shifted, *inputs[which + 1 :]]
            outputs = _outputs(function, values)
            with no_grad():
                sides.append(
                    sum(
                        float((y.data * w if not isinstance(w, Tensor) else y.data * w.data).sum())
                        for y, w in zip(outputs, weights)
                    )
                )
        numeric[place] = (sides[0] - sides[1]) / (2 * eps)
    return numeric


def _compare(
    function: Callable, which: int, analytic: np.ndarray, numeric: np.ndarray, atol: float, rtol: float
) -> None:
    error = np.abs(analytic - numeric)
    bad = ~(error <= atol + rtol * np.abs(numeric))  # so that NaN counts as bad
    if not bad.any():
        return
    worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    name = getattr(function, "__name__", repr(function))
    raise GradientError(
        f"the gradient of {name} for input {which} is wrong at {int(bad.sum())} of {bad.size} elements. Worst at index "
        f"{tuple(int(i) for i in worst)}: computed {analytic[worst]:.6g}, by finite differences {numeric[worst]:.6g} "
        f"(off by {error[worst]:.3g}, allowed {atol + rtol * abs(numeric[worst]):.3g}). Where they differ by a "
        "constant factor, look for a forgotten scale; where only repeated indices or broadcast axes differ, for a "
        "missing sum."
    )
