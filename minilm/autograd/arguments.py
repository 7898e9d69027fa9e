"""What a call of an operation is given: inputs and settings told apart, numbers and lists beside arrays made fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from minilm import backend

from .mode import state
from .tensor import Tensor

__all__ = ["Arguments", "Array", "plain", "raw", "together"]


_TAKEN = {"y": "the output", "needs": "which inputs want a gradient"}


class Array:
    """Annotation of an operation's differentiable inputs.

    >>> from minilm.autograd import op
    >>> @op
    ... def scaled(x: Array, factor=2.0):
    ...     return factor * x
    >>> scaled.inputs, scaled.settings
    (('x',), {'factor': 2.0})
    """


class Arguments:
    """A forward function's parameters, the differentiable inputs and the settings, and how calls fill them."""

    def __init__(self, name: str, forward: Callable) -> None:
        self.name = name
        parameters = inspect.signature(forward, eval_str=False).parameters.values()
        # The annotation is text under `from __future__ import annotations`, with the module's name perhaps.
        arrays = [p for p in parameters if p.annotation is Array or str(p.annotation).split(".")[-1] == "Array"]
        if not arrays:
            raise ValueError(
                f"no parameter of {name} is annotated as a differentiable input: write `def {name}(x: Array)`, with "
                "Array from minilm.autograd"
            )
        defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        self.variadic = arrays[0].kind is inspect.Parameter.VAR_POSITIONAL
        self.inputs = tuple(p.name for p in arrays)
        taken = [name for name in self.inputs if name in _TAKEN]
        if taken:
            raise ValueError(
                f"an input of {self.name} is named {taken[0]!r}, which in a gradient rule means {_TAKEN[taken[0]]}; "
                "give the input another name"
            )
        self.parameters = tuple(p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL)
        self.settings = {name: value for name, value in defaults.items() if name not in self.inputs}
        self._required = () if self.variadic else tuple(p.name for p in parameters if p.name not in defaults)
        self._places: dict[tuple, tuple] = {}  # of calls seen before

    @property
    def inputs_first(self) -> bool:
        """Whether the inputs come before the settings: a call with one argument for each needs no binding."""
        return not self.variadic and self.parameters[: len(self.inputs)] == self.inputs

    def bind(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Splits a call's arguments into the differentiable inputs and the settings."""
        if self.variadic:
            self._check_names(kwargs)
            return args, {**self.settings, **kwargs}
        call = (len(args), *kwargs)
        places = self._places.get(call)
        if places is None:
            places = self._places[call] = self._find_places(len(args), tuple(kwargs))
        inputs, settings, defaults = places
        values = (*args, *kwargs.values())
        bound = defaults.copy()
        for name, place in settings:
            bound[name] = self._raw_setting(name, values[place])
        return tuple(None if place is None else values[place] for place in inputs), bound

    def _find_places(self, count: int, names: tuple[str, ...]):
        """For calls with so many positional and these named arguments: where inputs and settings are among them."""
        if count > len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {count}")
        self._check_names(names)
        given = (*self.parameters[:count], *names)
        twice = [name for name in names if name in self.parameters[:count]]
        if twice:
            raise TypeError(f"{self.name} got {twice[0]!r} twice")
        missing = [name for name in self._required if name not in given]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(map(repr, missing))}")
        inputs = [given.index(name) if name in given else None for name in self.inputs]
        settings = [(name, place) for place, name in enumerate(given) if name not in self.inputs]
        return inputs, settings, {name: value for name, value in self.settings.items() if name not in given}

    def _raw_setting(self, name: str, value):
        if not isinstance(value, Tensor):
            return value
        if value.requires_grad and state.recording:
            raise ValueError(
                f"{self.name} gives no gradient to {name!r}, which requires one (parameters annotated `: Array` do); "
                f"pass {name}.detach() if that is meant"
            )
        return value._data

    def _check_names(self, names) -> None:
        unknown = [name for name in names if name not in self.parameters]
        if unknown:
            raise TypeError(f"{self.name} has no argument {unknown[0]!r}; it has {', '.join(self.parameters)}")


def raw(value):
    """The array of a Tensor; anything else as it is."""
    return value._data if isinstance(value, Tensor) else value


def plain(value, args: tuple):
    """A number or list among the inputs: a number stays one beside an array of floats, so that it does not promote it.

    (`numpy.float64(2)` counts as a number there: it is a Python float, and `x / numpy.sqrt(d)` must not become float64.
    Where it is the only one with a dtype it keeps that.)
    """
    others = (other for other in args if other is not value and hasattr(other, "shape"))
    other = next((other for other in others if other.dtype.kind in "fV"), None)
    if other is None and isinstance(value, np.generic):
        return value
    if other is None:
        other = next((other for other in args if other is not value and hasattr(other, "shape")), None)
    if other is None:
        return backend.as_array(value)
    if not isinstance(value, (int, float)):
        return backend.as_array(value, device=backend.device_of(raw(other)))
    if other.dtype.kind == "V" and isinstance(value, float):  # ml_dtypes lets a Python float make bfloat16 float32
        return other.dtype.type(value)
    return value.item() if isinstance(value, np.generic) else value


def together(operation: str, args: tuple, arrays: list) -> list:
    """`arrays` as CuPy takes them: those without axes may come from the host, as numbers, if they want no gradient."""
    arrays = [
        array[()]
        if isinstance(array, np.ndarray) and array.shape == () and not getattr(arg, "requires_grad", False)
        else array
        for arg, array in zip(args, arrays)
    ]
    backend.check_together(operation, [array for array in arrays if not isinstance(array, np.generic)])
    return arrays
