"""Running one node's gradient rules: what each is given, and what it may return."""

from __future__ import annotations

from minilm import backend

from .anomaly import has_nonfinite
from .arguments import raw
from .errors import where_called
from .operation import Node
from .placed import Placed
from .tensor import Tensor

__all__ = ["check_gradient", "check_versions", "keeps_floats", "output_gradient", "run_rules"]


def output_gradient(node: Node, gradients: list, create: bool):
    """What the rules get as `g`: the gradient, or for several outputs a tuple with zeros where none came."""
    arrays = [g if create or g is None else g.array for g in gradients]
    if len(arrays) == 1:
        return arrays[0]
    some = next(g for g in arrays if g is not None)
    xp = backend.array_module(some._data if create else some)
    for slot, (shape, dtype) in enumerate(node.outputs):
        if arrays[slot] is None:
            zeros = xp.zeros(shape, dtype if dtype.kind == "f" else some.dtype)
            arrays[slot] = Tensor(zeros) if create else zeros
    return tuple(arrays)


def run_rules(node: Node, g, needs: tuple[bool, ...], create: bool) -> list:
    """The gradients of the inputs that need one, None for the others, by the operation's rules."""
    operation, kept = node.operation, node.kept
    results: list = [None] * len(needs)
    if not operation.rules:
        raise RuntimeError(f"{operation.name} has no gradient; use it on detached tensors, or give it a rule")
    for rule, positions in operation.plan(needs).rules:
        values = []
        for name in rule.wants:
            if name not in kept:
                value = tuple(needs[p] for p in positions) if name == "needs" else node.settings[name]
            elif create or operation.variadic:
                value = _kept_value(node, name, create)
            else:
                value = kept[name]
                value = value._data if isinstance(value, Tensor) else value
            values.append(value)
        out = rule(g, values)
        if len(positions) == 1 and not isinstance(out, (tuple, list)):
            results[positions[0]] = out
            continue
        out = out if isinstance(out, (tuple, list)) else (out,)
        if len(out) != len(positions):
            raise ValueError(
                f"a gradient rule of {operation.name} returned {len(out)} gradients for {len(positions)} inputs; "
                "return one for each (None where there is none)"
            )
        for position, result in zip(positions, out):
            if needs[position]:
                results[position] = result
    return results


def _kept_value(node: Node, name: str, create: bool):
    """What a rule gets that was kept: raw arrays, or Tensors on the tape while a graph is created."""
    value = node.kept[name]
    if isinstance(value, Tensor):
        return value if create else value._data
    if name == "y" and create:
        if not isinstance(value, tuple):
            return _output_tensor(node, value, 0)
        return tuple(_output_tensor(node, part, slot) for slot, part in enumerate(value))
    if create or name.endswith("_shape"):
        return value
    if isinstance(value, tuple) and node.operation.variadic:
        return tuple(raw(part) for part in value)
    return raw(value)


def _output_tensor(node: Node, array, slot: int) -> Tensor:
    tensor = Tensor(array, True)
    tensor._node = node
    tensor._slot = slot
    return tensor


def check_versions(node: Node) -> None:
    """RuntimeError if an array that was kept has been changed in place since."""
    for name, version, when_kept in node.versions:
        if version[0] != when_kept:
            raise RuntimeError(
                f"{node.operation.name} kept {name!r} for its gradient, and it was changed in place since "
                f"({version[0] - when_kept} times); change a copy instead, or walk back before changing it"
            )


def check_gradient(node: Node, position: int, gradient) -> None:
    """FloatingPointError, naming the forward call, if a gradient has NaN or inf (in anomaly mode)."""
    array = gradient.values if isinstance(gradient, Placed) else raw(gradient)
    if has_nonfinite(array):
        name = node.operation.inputs[0 if node.operation.variadic else position]
        raise FloatingPointError(
            f"the gradient of {node.operation.name} for its input {name!r} has NaN or inf. The operation was called at "
            f"{node.line or where_called()}"
        )


def keeps_floats(node: Node) -> bool:
    """Whether the rules use numbers that the forward pass found out, whose own derivative they would leave out."""
    return any(getattr(getattr(node.kept.get(n), "dtype", None), "kind", "") == "f" for n in node.operation.keeps)
