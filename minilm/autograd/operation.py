"""`@op`: how an operation and its gradient are written, and what a call of one records.

    @op
    def multiply(a: Array, b: Array):
        return a * b

    @multiply.gradient("a")
    def _(g, b):
        return g * b

The forward function takes raw arrays: the parameters annotated `Array` are its differentiable inputs, all others are
settings. A gradient rule names by its parameters what it needs: `g` (the output's gradient), inputs by name, `y` (the
output), settings, `NAME_shape` (an input's shape without its values), `needs` (which of its inputs want a gradient).
Only what the rules that will run have named is kept.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable

import numpy as np

from minilm import backend

from .anomaly import check_finite
from .arguments import Arguments, plain, together
from .errors import where_called
from .mode import state
from .plans import Plan, Rule, make_plan
from .tensor import Tensor

__all__ = ["Node", "Operation", "as_array", "op"]


class Node:
    """One recorded call: what was kept of it, and where the gradients of its inputs go."""

    __slots__ = ("__weakref__", "edges", "hooks", "kept", "line", "operation", "outputs", "settings", "versions")

    def __init__(self, operation: Operation, edges: tuple, settings: dict) -> None:
        self.operation = operation
        self.edges = edges  # an input: None, or (Node or leaf Tensor, slot, shape, dtype)
        self.settings = settings
        self.kept: dict | None = None  # by the names that rules use; None once freed
        self.versions: list = []  # (name, version counter, its value when kept)
        self.outputs: list = []  # (shape, dtype) of each output
        self.hooks: dict | None = None
        self.line: str | None = None  # where it was called, in anomaly mode

    def hooks_of(self, slot: int) -> list:
        if self.hooks is None:
            self.hooks = {}
        return self.hooks.setdefault(slot, [])


class Operation:
    """A differentiable function of arrays. Call it with raw arrays for a raw array, with any Tensor for a Tensor."""

    def __init__(
        self, forward: Callable, *, keeps: tuple[str, ...] = (), view: bool = False, precision: str | None = None
    ) -> None:
        if precision not in (None, "low", "float32", "first"):
            raise ValueError(f"precision is 'low', 'float32', 'first' or None, not {precision!r}")
        self.forward = forward
        self.precision = precision  # what `autocast` makes of the inputs
        self.name = forward.__name__.strip("_")
        self.keeps = keeps  # names of what the forward function returns beyond its output, for the rules
        self.view = view  # the output shares the first input's memory
        self.rules: list[Rule] = []
        self.composed: Callable | None = None
        self.arguments = Arguments(self.name, forward)
        self.variadic = self.arguments.variadic
        self.inputs = self.arguments.inputs
        self.settings = self.arguments.settings  # their defaults
        self._simple = self.arguments.inputs_first
        self._plans: dict[tuple[bool, ...], Plan] = {}
        self.__doc__ = forward.__doc__
        self.__name__ = self.name
        self.__module__ = forward.__module__
        self.__wrapped__ = forward
        self.__signature__ = inspect.signature(forward)

    def gradient(self, *which) -> Callable:
        """Decorator for a rule: `@f.gradient` for all inputs at once, `@f.gradient("a", "b")` for those named."""
        if len(which) == 1 and callable(which[0]):
            return self.gradient()(which[0])
        for name in which:
            if name not in self.inputs:
                raise ValueError(f"{self.name} has no differentiable input {name!r}; it has {', '.join(self.inputs)}")

        def add(rule: Callable) -> Callable:
            positions = tuple(self.inputs.index(name) for name in which) or tuple(range(len(self.inputs)))
            entry = Rule(rule, positions)
            known = {
                *self.arguments.parameters,
                *self.inputs,
                *self.keeps,
                *(f"{name}_shape" for name in self.inputs),
                "y",
                "needs",
            }
            for name in entry.wants:
                if name not in known:
                    raise ValueError(
                        f"a gradient rule of {self.name} asks for {name!r}; it can ask for {sorted(known)}"
                    )
            self.rules.append(entry)
            self._plans.clear()
            return rule

        return add

    def require_rule(self, position: int) -> None:
        """RuntimeError if no rule speaks for this input: one that was forgotten must not pass for a zero."""
        if self.composed is None and not self.variadic and not any(position in r.positions for r in self.rules):
            raise RuntimeError(
                f"{self.name} has no gradient rule for its input {self.inputs[position]!r}; add one, or detach it"
            )

    def composition(self, function: Callable) -> Callable:
        """Decorator: names the same function as a composition of simpler operations, for higher derivatives."""
        self.composed = function
        self._plans.clear()
        return function

    def plan(self, needs: tuple[bool, ...]) -> Plan:
        """What is kept and run for the inputs that need a gradient."""
        plan = self._plans.get(needs)
        if plan is None:
            plan = self._plans[needs] = self._make_plan(needs)
        return plan

    def _make_plan(self, needs: tuple[bool, ...]) -> Plan:
        rules = [(rule, tuple(range(len(needs))) if self.variadic else rule.positions) for rule in self.rules]
        return make_plan(rules, needs, self.inputs, self.keeps, keep_inputs=self.composed is not None)

    def __call__(self, *args, **kwargs):
        if kwargs or not self._simple or len(args) != len(self.inputs):
            args, settings = self.arguments.bind(args, kwargs)
        else:
            settings = self.settings
        if state.autocast is not None and self.precision is not None:
            args = state.autocast.inputs(self.precision, args)
        arrays = []
        wrapped = tracked = False
        for value in args:
            if isinstance(value, Tensor):
                wrapped = True
                tracked = tracked or value.requires_grad
                value = value._data
            elif isinstance(value, (int, float, list, tuple)):
                given, value = value, plain(value, args)
                if value is not given:  # rules see what the forward saw
                    args = tuple(value if other is given else other for other in args)
            arrays.append(value)
        if "cupy" in sys.modules and backend.has_cuda_array(arrays):
            arrays = together(self.name, args, arrays)
        if not wrapped:
            out = self._run(arrays, settings)
            return out[0] if self.keeps else out
        tracked = tracked and state.recording
        start = time.perf_counter() if state.trace is not None else 0.0
        out = self._run(arrays, settings)
        if state.anomaly:
            check_finite(self.name, arrays, out)
        result = self._record(args, settings, out) if tracked else self._wrap(args, out)
        if state.trace is not None:
            state.trace.forward(self, arrays, result, time.perf_counter() - start)
        return result

    def _run(self, arrays: list, settings: dict):
        if self._simple or self.variadic:
            return self.forward(*arrays, **settings)
        return self.forward(**dict(zip(self.inputs, arrays)), **settings)

    def _wrap(self, inputs: tuple, out):
        """The outputs of a call that nothing needs to be remembered of."""
        if self.keeps:
            out = out[0]
        if isinstance(out, tuple):
            return tuple(self._wrap_one(inputs, part) for part in out)
        return self._wrap_one(inputs, out)

    def _wrap_one(self, inputs: tuple, part) -> Tensor:
        tensor = Tensor(as_array(part))
        if self.view and isinstance(inputs[0], Tensor):
            tensor._version = inputs[0]._version
        return tensor

    def _record(self, inputs: tuple, settings: dict, out):
        """Puts the call on the tape and returns its outputs as tensors that know it."""
        extras = ()
        if self.keeps:
            out, *extras = out
        edges = []
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                source = value if value._node is None else value._node
                data = value._data
                edges.append((source, value._slot, data.shape, data.dtype))
            else:
                edges.append(None)
        node = Node(self, tuple(edges), settings)
        if state.anomaly:
            node.line = where_called()
        result = self._outputs(inputs, node, out)
        self._keep(node, self.plan(tuple([edge is not None for edge in edges])), inputs, extras, out, result)
        return result

    def _outputs(self, inputs: tuple, node: Node, out):
        tensors = []
        for slot, part in enumerate(out if isinstance(out, tuple) else (out,)):
            part = as_array(part)
            tensor = Tensor(part)
            dtype = part.dtype
            node.outputs.append((part.shape, dtype))
            if dtype.kind == "f" or dtype.name == "bfloat16":
                tensor.requires_grad, tensor._node, tensor._slot = True, node, slot
            elif dtype.kind == "c":
                raise TypeError(f"{self.name} made complex numbers, which have no gradient here: {dtype}")
            if self.view and isinstance(inputs[0], Tensor):
                tensor._version = inputs[0]._version
            tensors.append(tensor)
        return tuple(tensors) if isinstance(out, tuple) else tensors[0]

    def _keep(self, node: Node, plan: Plan, inputs: tuple, extras, out, result) -> None:
        node.kept = kept = {}
        versions = node.versions
        for name, place in plan.inputs:
            kept[name] = value = inputs if self.variadic else inputs[place]
            for x in value if self.variadic else (value,):
                if isinstance(x, Tensor):
                    versions.append((name, x._version, x._version[0]))
        for name, place in plan.shapes:
            kept[name] = tuple(x.shape for x in inputs) if self.variadic else getattr(inputs[place], "shape", ())
        if plan.output:
            kept["y"] = out  # the raw array: a Tensor here would hold its own node in a cycle
            for part in result if isinstance(result, tuple) else (result,):
                versions.append(("its output", part._version, part._version[0]))
        for name, place in plan.extras:
            kept[name] = extras[place]

    def __repr__(self) -> str:
        return f"<operation {self.name}{self.__signature__}>"


def op(
    forward: Callable | None = None,
    *,
    keeps: tuple[str, ...] = (),
    view: bool = False,
    precision: str | None = None,
):
    """Decorator: makes a function of raw arrays an operation, to which `.gradient` rules are then added.

    `keeps` names what the function returns beside its output for its rules' use (`return y, mask`). `view=True` says
    that the output shares memory with the first input. An operation without a rule stops gradients with an error.
    A function that returns a tuple has several outputs, and `g` and `y` in its rules are tuples as well.
    `precision` says what becomes of the inputs inside `autocast`: "low" casts them to its dtype, "float32" to float32,
    "first" to the first one's dtype; None leaves them as they come.

    >>> import minilm
    >>> from minilm.autograd import Array, op
    >>> @op
    ... def cube(x: Array):
    ...     return x * x * x
    >>> @cube.gradient
    ... def _(g, x):
    ...     return 3 * g * x * x
    >>> x = minilm.tensor([2.0], requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    tensor([12.])
    """
    if forward is None:
        return lambda function: Operation(function, keeps=keeps, view=view, precision=precision)
    return Operation(forward, keeps=keeps, view=view, precision=precision)


def as_array(value):
    """NumPy's reductions to a point give scalars; on the tape there are only arrays."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if not hasattr(value, "dtype"):
        raise TypeError(f"an operation's function returns an array, or a tuple of arrays; got a {type(value).__name__}")
    return value
