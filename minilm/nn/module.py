"""Module: a layer or a model, a tree of parameters with a forward function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from minilm import backend
from minilm.autograd import Tensor

__all__ = ["Module", "Parameter", "eval_mode"]


class Parameter(Tensor):
    """A tensor that a module learns: it requires a gradient unless told otherwise.

    >>> Parameter([1.0, 2.0])
    tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else backend.as_array(data), requires_grad)


class Module:
    """The base of all layers: parameters and modules that are assigned to `self` are part of the tree.

    Subclasses define `forward`; calling the module runs it, with the hooks around it. A plain list, tuple or dict of
    modules is refused with a TypeError, for nobody would see its weights: a ModuleList holds them.

    >>> import numpy as np
    >>> from minilm import nn
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         self.linear = nn.Linear(2, 2)
    ...     def forward(self, x):
    ...         return self.linear(self.linear(x))
    >>> [name for name, _ in Twice().named_parameters()]
    ['linear.weight', 'linear.bias']
    """

    training = True

    def forward(self, *args, **kwargs):
        """What the module computes."""
        raise TypeError(f"{type(self).__name__} defines no forward(); a Module needs one to be called")

    def __call__(self, *args, **kwargs):
        if "_forward_hooks" not in self.__dict__:  # nearly always
            return self.forward(*args, **kwargs)
        for hook in self._hooks("before"):
            replaced = hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        out = self.forward(*args, **kwargs)
        for hook in self._hooks("after"):
            replaced = hook(self, args, out)
            out = out if replaced is None else replaced
        return out

    def __setattr__(self, name: str, value) -> None:
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, (list, tuple, dict)) and any(isinstance(part, (Module, Parameter)) for part in parts):
            raise TypeError(
                f"{type(self).__name__}.{name} is a plain {type(value).__name__} of modules or parameters, which would "
                "be neither learnt nor saved; put modules into an nn.ModuleList, and give each parameter its own name"
            )
        object.__setattr__(self, name, value)

    # The tree.

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names, each once."""
        yield from _unique(self._walk(prefix))

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; one that is shared comes once, under its first name."""
        found = (
            (f"{prefix}.{name}" if prefix else name, value)
            for prefix, module in self._walk("")
            for name, value in vars(module).items()
            if isinstance(value, Parameter)
        )
        return _unique(found) if remove_duplicate else found

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def register_buffer(self, name: str, array, persistent: bool = True) -> None:
        """Sets `self.name` to a tensor that is not learnt, but moves and (if `persistent`) is saved with the module.

        >>> module = Module()
        >>> module.register_buffer("mean", [0.0, 0.0])
        >>> module.mean, list(module.state_dict())
        (tensor([0., 0.]), ['mean'])
        """
        value = array if isinstance(array, Tensor) else Tensor(backend.as_array(array))
        setattr(self, name, value)
        vars(self).setdefault("_buffers", {})[name] = persistent

    def named_buffers(self, persistent_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names."""
        for prefix, module in self.named_modules():
            for name, persistent in vars(module).get("_buffers", {}).items():
                if persistent or not persistent_only:
                    yield (f"{prefix}.{name}" if prefix else name), getattr(module, name)

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers())

    @property
    def n_parameters(self) -> int:
        """How many numbers the module learns, shared ones counted once."""
        return sum(parameter.size for parameter in self.parameters())

    # Weights in and out.

    def state_dict(self) -> dict[str, Any]:
        """Name to raw array, for all parameters and persistent buffers; the arrays are the module's own, not copies."""
        tensors = [*self.named_parameters(), *self.named_buffers(persistent_only=True)]
        return {name: tensor.data for name, tensor in tensors}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies arrays into the parameters and buffers of the same names; returns the (missing, unexpected) names.

        Everything is checked before anything is written: KeyError for missing or unexpected names (unless not
        `strict`), ValueError for shapes that differ, each listed by name.

        >>> from minilm import nn
        >>> one, other = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> other.load_state_dict(one.state_dict())
        ([], [])
        >>> other.load_state_dict({"weight": one.weight}, strict=False)
        (['bias'], [])
        """
        if not isinstance(state, Mapping):
            read = "minilm.checkpoint.load_weights(path) reads a file's, model.state_dict() has a model's"
            raise TypeError(f"load_state_dict takes a dict of arrays by name, not a {type(state).__name__}; {read}")
        known = {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(persistent_only=True)),
        }
        names = {name: known.get(name) for name in state}  # a shared tensor may come under any of its names
        given = {id(tensor) for tensor in names.values()}
        missing = [name for name, tensor in _unique(known.items()) if id(tensor) not in given]
        unexpected = [name for name, tensor in names.items() if tensor is None]
        if strict and (missing or unexpected):
            raise KeyError(
                f"the weights do not fit {type(self).__name__}. {_listed('missing', missing)}"
                f"{_listed('unexpected', unexpected)}load_state_dict(..., strict=False) takes what fits"
            )
        misshapen = [
            f"{name} is {tuple(state[name].shape)}, expected {tensor.shape}"
            for name, tensor in names.items()
            if tensor is not None and tuple(state[name].shape) != tensor.shape
        ]
        if misshapen:
            raise ValueError(f"the weights do not fit {type(self).__name__}: {'; '.join(misshapen)}")
        for name, tensor in names.items():
            if tensor is not None:
                value = state[name].data if isinstance(state[name], Tensor) else state[name]
                tensor.data[...] = backend.to_device(value, tensor.device)
                tensor.bump_version()
        return missing, unexpected

    # Modes.

    def train(self, mode: bool = True) -> Module:
        """Switches dropout and the like on (or off); returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switches dropout and the like off; returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Says of all parameters whether they are learnt; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, target) -> Module:
        """Moves parameters and buffers to a device ("cpu", "cuda"), or floating-point ones to a dtype, in place.

        Gradients go along. Raises TypeError for what is neither a device nor a floating-point dtype.
        """
        to_device = isinstance(target, str) and target in ("cpu", "cuda")
        try:
            dtype = None if to_device else backend.resolve_dtype(target)
        except TypeError as error:
            raise TypeError(f"to() takes a device, 'cpu' or 'cuda', or a dtype: {error}") from None
        if dtype is not None and not _is_floating(dtype):
            raise TypeError(f"a module moves to 'cpu', 'cuda' or a floating-point dtype; {target!r} is none of them")
        for tensor in [*self.parameters(), *self.buffers()]:
            for holder in (tensor, tensor.grad):
                if holder is None or not (to_device or _is_floating(holder.dtype)):
                    continue
                data = holder.data
                moved = backend.to_device(data, target) if to_device else data.astype(dtype, copy=False)
                if moved is not data:
                    holder.data = moved
        return self

    @property
    def device(self) -> str:
        """Where the first parameter is; "cpu" for a module without any."""
        return next((parameter.device for parameter in self.parameters()), "cpu")

    def apply(self, function: Callable[[Module], None]) -> Module:
        """Calls `function` on all modules, children before parents; returns the module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    # Hooks.

    def register_forward_pre_hook(self, hook: Callable) -> Callable[[], None]:
        """Calls `hook(module, args)` before forward; what it returns, if not None, replaces args. Returns a remover."""
        return self._add_hook("before", hook)

    def register_forward_hook(self, hook: Callable) -> Callable[[], None]:
        """Calls `hook(module, args, output)` after forward; what it returns, if not None, replaces the output.

        >>> from minilm import nn
        >>> model, seen = nn.FeedForward(4), []
        >>> remove = model.up_proj.register_forward_hook(lambda module, args, out: seen.append(out.shape))
        >>> y = model(minilm.tensor(np.ones((2, 4), np.float32)))
        >>> remove()
        >>> seen
        [(2, 16)]
        """
        return self._add_hook("after", hook)

    def _hooks(self, when: str) -> list[Callable]:
        return list(self._forward_hooks[when])

    def _add_hook(self, when: str, hook: Callable) -> Callable[[], None]:
        hooks = vars(self).setdefault("_forward_hooks", {"before": [], "after": []})[when]
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    # For people.

    def extra_repr(self) -> str:
        """What a layer says of itself between its parentheses."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        inside = "\n  ".join([self.extra_repr(), *lines] if self.extra_repr() else lines)
        return f"{type(self).__name__}({inside})" if not lines else f"{type(self).__name__}(\n  {inside}\n)"


@contextmanager
def eval_mode(module: Module) -> Iterator[None]:
    """A `with` block in which `module` is in eval mode; each of its parts is then put back into its own mode.

    >>> from minilm.nn import Dropout
    >>> layer = Dropout(0.5)
    >>> with eval_mode(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _is_floating(dtype) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _unique(pairs):
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{what.capitalize()}: {shown}. "
