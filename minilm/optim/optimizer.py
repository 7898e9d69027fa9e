"""Optimizer: parameter groups, the state of each parameter, and the walk over them that every optimiser shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minilm import backend
from minilm.autograd import Tensor

from . import settings, state
from .parameters import named_tensors, working_array

__all__ = ["Batch", "Optimizer"]


@dataclass
class Batch:
    """Parameters of one group that have a gradient, one dtype and one number of steps: raw arrays, side by side.

    `arrays[name]` lists the parameters' state; `step` counts from 1. An update writes `params` and `arrays` in place.
    """

    step: int
    params: list
    grads: list
    arrays: dict[str, list]


class Optimizer:
    """What optimisers have in common. One of one's own needs `update`, and `array_names` if it has a state:

    >>> class SignMomentum(Optimizer):
    ...     def __init__(self, params, lr, beta=0.9):
    ...         super().__init__(params, {"lr": lr, "beta": beta})
    ...
    ...     def array_names(self, group):
    ...         return ("momentum",)
    ...
    ...     def update(self, group, batch, grad_scale):
    ...         for p, g, m in zip(batch.params, batch.grads, batch.arrays["momentum"]):
    ...             m += (1 - group["beta"]) * (grad_scale * g - m)
    ...             p -= group["lr"] * np.sign(m)
    >>> w = minilm.tensor([1.0, -1.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> SignMomentum([w], lr=0.5).step()
    >>> w
    tensor([ 0.5, -0.5], requires_grad=True)

    `check` looks at a group's settings, if they should be looked at.

    `params` is an iterable of tensors, of (name, tensor) pairs, or of groups: dicts whose "params" is such an iterable
    and whose other entries override `defaults` ("name" may label the group). State is saved under the names; tensors
    without one are named by their number. The groups are the dicts in `param_groups`: changing a setting there takes
    effect at the next step.

    As in PyTorch, parameters that are frozen or have no gradient are passed over: neither they nor their count of steps
    change. State is made at a group's first step, one flat array for each name, of which each parameter has a slice.

    TypeError or ValueError for no parameters, a parameter given twice, one that is not a floating-point leaf, an option
    that the optimiser does not have, a setting out of range.
    """

    def __init__(self, params, defaults: dict) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[dict] = []
        self.state: dict[Tensor, dict] = {}
        self._names: dict[Tensor, str] = {}
        if isinstance(params, Iterator):
            params = list(params)  # to look at the first item
        groups = (
            params
            if isinstance(params, (list, tuple)) and params and isinstance(params[0], dict)
            else [{"params": params}]
        )
        for group in groups:
            self.add_param_group(group)
        if not self._names:
            raise ValueError("the optimiser got no parameters; an iterator that was used up before is empty as well")

    # What an optimiser is made of.

    def array_names(self, group: dict) -> tuple[str, ...]:
        """The names of the arrays, of a parameter's shape and zero at first, that a parameter of `group` needs."""
        return ()

    def check(self, group: dict) -> None:
        """Raises if a setting of `group` is out of range, and makes its numbers plain Python numbers."""
        group["lr"] = settings.nonnegative("lr", group["lr"])

    def update(self, group: dict, batch: Batch, grad_scale: float) -> None:
        """One step for the parameters in `batch`, in place; gradients count `grad_scale` times."""
        raise NotImplementedError(f"{type(self).__name__} has to define update(group, batch, grad_scale)")

    # What is done with one.

    def step(self, grad_scale: float = 1.0) -> None:
        """Updates every parameter that has a gradient; gradients are multiplied by `grad_scale` on the fly.

        Clipping by norm is `step(grad_scale=clip_coefficient(grad_norm(params), max_norm))`. ValueError where
        `grad_scale` is not finite: gradients were NaN or infinite, and the step would spread that to every parameter.
        """
        grad_scale = settings.number("grad_scale", grad_scale)
        for group in self.param_groups:
            self.check(group)
        plan = [(group, self._ready(group)) for group in self.param_groups]  # raises before anything is changed
        for group, ready in plan:
            for members in _alike(ready):
                self._update_members(group, members, grad_scale)

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def add_param_group(self, group: dict) -> None:
        """Adds a group of parameters, such as layers that are trained from now on; see the class for its form."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"a parameter group is a dict with an entry 'params'; got {type(group).__name__}")
        unknown = set(group) - {"params", *state.LABELS, *self.defaults}
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no option {min(unknown)!r}; a group may set: {', '.join(self.defaults)}"
            )
        added = self.defaults | {key: value for key, value in group.items() if key != "params"}
        self.check(added)
        if "initial_lr" in added:
            added["initial_lr"] = settings.nonnegative("initial_lr", added["initial_lr"])
        names: dict[Tensor, str] = {}
        taken = set(self._names.values())
        for given, parameter in named_tensors(group["params"]):
            name = str(len(self._names) + len(names)) if given is None else given
            _check_parameter(name, parameter)
            if parameter in self._names or parameter in names:
                first = (self._names | names)[parameter]
                raise ValueError(f"parameter {name} was given before, as {first}; a parameter is updated once a step")
            if name in taken:
                raise ValueError(f"two parameters are named {name!r}; state is saved by name, so names must differ")
            names[parameter] = name
            taken.add(name)
        self._names |= names
        self.param_groups.append({"params": list(names), **added})

    def state_dict(self) -> dict:
        """All that is needed to go on from here: `{"arrays": name -> raw array, "settings": what JSON can hold}`.

        The arrays ("exp_avg.<parameter>", ...) are the optimiser's own, not copies: write them before the next step.
        """
        arrays: dict = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                entry = self.state.get(parameter)
                for array_name in self.array_names(group) if entry is not None else ():
                    arrays[f"{array_name}.{self._names[parameter]}"] = entry[array_name]
        groups = [
            {
                "params": [self._names[parameter] for parameter in group["params"]],
                "settings": {
                    key: list(value) if isinstance(value, tuple) else value
                    for key, value in group.items()
                    if key != "params"
                },
            }
            for group in self.param_groups
        ]
        steps = {self._names[parameter]: entry["step"] for parameter, entry in self.state.items()}
        return {"arrays": arrays, "settings": {"optimizer": type(self).__name__, "steps": steps, "groups": groups}}

    def load_state_dict(self, saved: dict) -> None:
        """Goes on from `state_dict()` of an optimiser of the same kind over the same groups, bit for bit.

        Settings of the groups become the saved ones; arrays are copied, to the parameters' device. ValueError, and
        nothing is changed, for another kind of optimiser, other groups, or an array missing, left over or of another
        shape or dtype.
        """
        state.load(self, saved, self._names)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for group in self.param_groups:
            options = ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
            size = sum(parameter.size for parameter in group["params"])
            lines.append(f"    {len(group['params'])} parameters, {size:,} numbers: {options}")
        return "\n".join([*lines, ")"])

    def _ready(self, group: dict) -> list[_Member]:
        """The parameters of a group that have a gradient, with what their update needs."""
        ready = [p for p in group["params"] if p.requires_grad and p.grad is not None]
        state.ensure(self.state, group["params"], ready, self.array_names(group), self._names)
        names = [self._names[p] for p in ready]
        return [_Member(p, working_array(n, p), _gradient(n, p), self.state[p]) for n, p in zip(names, ready)]

    def _update_members(self, group: dict, members: list[_Member], grad_scale: float) -> None:
        arrays = {name: [member.state[name] for member in members] for name in self.array_names(group)}
        step = members[0].state["step"]
        self.update(group, Batch(step, [m.array for m in members], [m.gradient for m in members], arrays), grad_scale)
        for member in members:
            if member.array is not member.parameter.data:
                member.parameter.data[...] = member.array
            member.parameter.bump_version()


class _Member(NamedTuple):
    parameter: Tensor
    array: object
    gradient: object
    state: dict


def _alike(ready: list[_Member]) -> Iterable[list[_Member]]:
    """`ready`, counted one step further, in lists of one dtype, library and number of steps: nearly always one list."""
    alike: dict[tuple, list[_Member]] = {}
    for member in ready:
        member.state["step"] += 1
        key = (member.state["step"], member.array.dtype, type(member.array))
        alike.setdefault(key, []).append(member)
    return alike.values()


def _check_parameter(name: str, parameter: Tensor) -> None:
    if not parameter.is_leaf:
        raise ValueError(
            f"parameter {name} (shape {parameter.shape}) was computed by an operation and has no gradient of its own; "
            "pass the leaf tensors that it was computed from"
        )
    if not np.issubdtype(parameter.dtype, np.floating) and parameter.dtype.name != "bfloat16":
        raise TypeError(f"parameter {name} is {parameter.dtype}; only floating-point tensors can be trained")


def _gradient(name: str, parameter: Tensor):
    """The raw gradient of a parameter, contiguous."""
    gradient = parameter.grad
    if not isinstance(gradient, Tensor):
        raise TypeError(f"the gradient of parameter {name} is a {type(gradient).__name__}; expected a minilm.Tensor")
    array = gradient.data
    alike = array.shape == parameter.shape and array.dtype == parameter.dtype
    if alike and type(array) is type(parameter.data) and array.flags.c_contiguous:
        return array  # nearly always
    if gradient.shape != parameter.shape or gradient.dtype != parameter.dtype or gradient.device != parameter.device:
        raise ValueError(
            f"the gradient of parameter {name} is {gradient.dtype} {gradient.shape} on {gradient.device}; expected "
            f"what the parameter is: {parameter.dtype} {parameter.shape} on {parameter.device}"
        )
    # asarray and not ascontiguousarray, which would give a number an axis.
    return backend.array_module(array).asarray(array, order="C")
