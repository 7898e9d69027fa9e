"""The backward walk: from outputs to inputs along the tape, each operation once, after all that depend on it.

The walk is iterative and linear in the number of operations. It computes no gradient that nobody asked for, drops
what an operation kept as soon as its rule has run, and undoes broadcasting and checks shapes and dtypes for all rules.
"""

from __future__ import annotations

from collections.abc import Iterable

from minilm import backend

from .arguments import Array
from .autocast import autocast
from .mode import enable_grad, no_grad, state
from .operation import Node, as_array, op
from .rules import check_gradient, check_versions, keeps_floats, output_gradient, run_rules
from .sums import Sum, contribute, fit_to_input, is_aliased
from .tensor import Tensor

__all__ = ["backward", "grad", "recorded_by"]


def backward(output: Tensor, gradient=None, *, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Adds the gradient of `output` to `.grad` of every leaf that it was computed from; see `Tensor.backward`.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0], requires_grad=True)
    >>> backward(x * x, minilm.tensor([1.0, 10.0]))
    >>> x.grad.tolist()
    [2.0, 40.0]
    """
    seeds = [_seed(output, gradient, create_graph)]
    _walk([output], seeds, None, retain_graph or create_graph, create_graph)


def grad(
    outputs,
    inputs,
    grad_outputs=None,
    create_graph: bool = False,
    allow_unused: bool = False,
    retain_graph: bool | None = None,
):
    """The gradients of `outputs` (one tensor or several) in `inputs` (leaves or not), without touching `.grad`.

    `grad_outputs` weighs the outputs (ones for a single element). Returns a tuple of Tensors, one an input; an input
    that the outputs do not depend on is an error, or None with `allow_unused`. `create_graph` makes the result itself
    differentiable. The graph is freed unless `retain_graph` (its default is `create_graph`).

    >>> import minilm
    >>> x = minilm.tensor(3.0, requires_grad=True)
    >>> (dy,) = minilm.grad(x**3, x, create_graph=True)
    >>> (ddy,) = minilm.grad(dy, x)
    >>> dy.item(), ddy.item()
    (27.0, 18.0)
    """
    outputs, inputs = _tensors("outputs", outputs), _tensors("inputs", inputs)
    weights = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]
    if grad_outputs is None:
        weights = [None] * len(outputs)
    if len(weights) != len(outputs):
        raise ValueError(f"grad got {len(outputs)} outputs and {len(weights)} grad_outputs; give one for each output")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"input {i} of grad (shape {x.shape}) does not require a gradient")
    seeds = [_seed(output, weight, create_graph) for output, weight in zip(outputs, weights)]
    keep = create_graph if retain_graph is None else retain_graph
    found = _walk(outputs, seeds, inputs, keep, create_graph)
    unused = [i for i, x in enumerate(inputs) if _key(x) not in found]
    if unused and not allow_unused:
        raise ValueError(
            f"the outputs do not depend on input {unused[0]} of grad (shape {inputs[unused[0]].shape}); "
            "pass allow_unused=True to get None for it"
        )
    results = (found.get(_key(x)) for x in inputs)
    return tuple(x if x is None or isinstance(x, Tensor) else Tensor(x.own()) for x in results)


def _tensors(name: str, given) -> list[Tensor]:
    """A tensor, or several, as a list; TypeError for anything else."""
    if isinstance(given, Tensor):
        return [given]
    found = list(given) if isinstance(given, Iterable) else []
    if not isinstance(given, Iterable) or not all(isinstance(x, Tensor) for x in found):
        hint = "; call the function, and give what it returns" if callable(given) else ""
        raise TypeError(f"the {name} of grad are a Tensor or a list of Tensors; got a {type(given).__name__}{hint}")
    return found


def _key(tensor: Tensor):
    """What the gradient of a tensor is filed under: outputs of an operation by their place on the tape."""
    return id(tensor) if tensor._node is None else (id(tensor._node), tensor._slot)


def _seed(output: Tensor, gradient, create_graph: bool):
    """The gradient that a walk starts with at `output`."""
    if not output.requires_grad:
        raise ValueError(
            "this tensor does not require a gradient: no input of its computation did, or it was made under no_grad()"
        )
    xp = backend.array_module(output._data)
    if gradient is None:
        if output.size != 1:
            raise ValueError(
                f"backward from a tensor of shape {output.shape} needs a gradient of that shape; or reduce it to one "
                "element first, with .sum() or .mean()"
            )
        gradient = xp.ones_like(output._data)
    if not isinstance(gradient, Tensor):
        gradient = Tensor(backend.as_array(gradient, output.dtype, output.device))
    if gradient.shape != output.shape:
        raise ValueError(
            f"the gradient for a tensor of shape {output.shape} has shape {gradient.shape}; they must agree"
        )
    if create_graph:
        return gradient if gradient.dtype == output.dtype else gradient.to(output.dtype)
    return gradient._data.astype(output.dtype, copy=False)


def recorded_by(outputs: list[Tensor]) -> list:
    """The nodes and leaves of the tape behind `outputs`, inputs first; RuntimeError where it was freed."""
    return _order(outputs)


def _order(outputs: list[Tensor]) -> list:
    """Nodes and leaves, inputs before what is computed from them (depth-first, without recursion)."""
    order: list = []
    seen: set[int] = set()
    for output in outputs:
        root = output if output._node is None else output._node
        stack = [(root, False)]
        while stack:
            item, finished = stack.pop()
            if finished:
                order.append(item)
            elif id(item) not in seen:
                seen.add(id(item))
                stack.append((item, True))
                if isinstance(item, Node):
                    if item.kept is None:
                        raise _freed(item)
                    stack += [(edge[0], False) for edge in item.edges if edge is not None and id(edge[0]) not in seen]
    return order


def _walk(outputs: list[Tensor], seeds: list, targets: list[Tensor] | None, retain: bool, create: bool) -> dict:
    """Gradients of the `targets`, by `_key`; without targets those of all leaves are added to their `.grad` instead."""
    order = _order(outputs)
    wanted = None if targets is None else {_key(target): target for target in targets}
    useful = None if wanted is None else _useful(order, wanted)
    sums: dict = {}
    for output, seed in zip(outputs, seeds):
        contribute(sums, _key(output), seed, False, create)
    found: dict = {}
    with enable_grad() if create else no_grad(), autocast(None):
        while order:
            item = order.pop()
            if isinstance(item, Tensor):
                total = sums.pop(id(item), None)
                if total is not None and (wanted is None or id(item) in wanted):
                    if item._hooks:
                        total = _run_hooks(item._hooks, total, item.shape, create)
                    if wanted is None:
                        _accumulate_into_leaf(item, total, create)
                    else:
                        found[id(item)] = total
                continue
            gradients = [_finished(sums, item, slot, wanted, found, create) for slot in range(len(item.outputs))]
            if any(g is not None for g in gradients) and (useful is None or id(item) in useful):
                _step(item, gradients, sums, useful, wanted, create)
            if not retain:
                item.kept = None
                item.versions = ()
                item.edges = ()
            del gradients
    return found


def _useful(order: list, wanted: dict) -> set[int]:
    """The ids of nodes that a path from the outputs to a wanted input goes through."""
    useful: set[int] = set()
    for item in order:
        if isinstance(item, Node) and any(e is not None and _leads(e, useful, wanted) for e in item.edges):
            useful.add(id(item))
    return useful


def _leads(edge: tuple, useful: set[int], wanted: dict) -> bool:
    source, slot = edge[0], edge[1]
    if isinstance(source, Tensor):
        return id(source) in wanted
    return id(source) in useful or (id(source), slot) in wanted


def _finished(sums: dict, node: Node, slot: int, wanted: dict | None, found: dict, create: bool):
    """The whole gradient of one output of `node`, after its hooks; None if nothing reached it."""
    key = (id(node), slot)
    total = sums.pop(key, None)
    if total is None:
        return None
    if node.hooks is not None and slot in node.hooks:
        total = _run_hooks(node.hooks[slot], total, node.outputs[slot][0], create)
    if wanted is not None and key in wanted:
        found[key] = total if create else Sum(total.array, False)
    return total


def _run_hooks(hooks, total, shape: tuple, create: bool):
    for hook in list(hooks):
        given = total if create else Tensor(total.array)
        replaced = hook(given)
        if replaced is None:
            total = total if create else Sum(total.array, False)
            continue
        replaced = replaced if isinstance(replaced, Tensor) else Tensor(backend.as_array(replaced))
        if replaced.shape != shape:
            raise ValueError(f"a gradient hook returned shape {replaced.shape} for a tensor of shape {shape}")
        if replaced.dtype != given.dtype:
            replaced = replaced.to(given.dtype)
        total = replaced if create else Sum(replaced._data, False)
    return total


def _step(node: Node, gradients: list, sums: dict, useful, wanted, create: bool) -> None:
    """Runs the rules of one node and hands their gradients on."""
    operation = node.operation
    check_versions(node)
    if useful is None:
        needs = tuple([e is not None for e in node.edges])
    else:
        needs = tuple([e is not None and _leads(e, useful, wanted) for e in node.edges])
    g = output_gradient(node, gradients, create)
    tracer = state.trace
    token = tracer.start() if tracer is not None else None
    if create and operation.composed is not None:
        results = _through_composition(node, g, needs)
    elif create and keeps_floats(node):
        raise RuntimeError(f"{operation.name} has no composition, so its gradient can't be differentiated; add one")
    else:
        results = run_rules(node, g, needs, create)
    if tracer is not None:
        tracer.backward(node, token)
    for position, edge in enumerate(node.edges):
        result = results[position]
        if result is None or edge is None:
            if needs[position]:
                operation.require_rule(position)
            continue
        source, slot, shape, dtype = edge
        fitted = fit_to_input(operation, position, result, shape, dtype)
        if state.anomaly:
            check_gradient(node, position, fitted)
        owned = fitted is not result or not is_aliased(result, g, node.kept, results[:position])
        contribute(sums, id(source) if isinstance(source, Tensor) else (id(source), slot), fitted, owned, create)


def _through_composition(node: Node, g, needs: tuple[bool, ...]) -> list:
    """The gradient of a fused operation, by differentiating the composition of simple operations that stands for it."""
    names = node.operation.inputs
    inputs = [node.kept[name] for name in names]
    # Stand-ins for the inputs, so that this walk ends here even where one input was computed from another.
    stand_ins = [_identity(x) if need else x for x, need in zip(inputs, needs)]
    y = node.operation.composed(*stand_ins, **node.settings)
    wanted = [x for x, need in zip(stand_ins, needs) if need]
    edges = [x._node.edges for x in wanted]
    for x in wanted:  # cut off, so that this walk does not go through the whole graph behind them
        x._node.edges = ()
    found = iter(grad(y, wanted, g, create_graph=True, allow_unused=True))
    for x, before in zip(wanted, edges):
        x._node.edges = before
    return [next(found) if need else None for need in needs]


@op(view=True)
def _identity(x: Array):
    return x[...]


@_identity.gradient
def _(g):
    return g


@op
def _copy(x: Array):
    return x.copy()


@_copy.gradient
def _(g):
    return g


def _accumulate_into_leaf(leaf: Tensor, total, create: bool) -> None:
    if leaf.grad is not None and not isinstance(leaf.grad, Tensor):
        raise TypeError(f"the .grad of a leaf is a {type(leaf.grad).__name__}; expected a Tensor, or None: wrap it")
    if create:
        with enable_grad():
            leaf.grad = _copy(total) if leaf.grad is None else leaf.grad + total
    elif leaf.grad is None:
        leaf.grad = Tensor(total.own())
    elif leaf.grad._node is None:
        leaf.grad._data += total.array
        leaf.grad.bump_version()
    else:
        leaf.grad = Tensor(as_array(leaf.grad._data + total.array))


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(
        f"the graph was freed by an earlier backward (at {node.operation.name}); call that one with retain_graph=True "
        "to walk it again, or compute the forward pass anew"
    )
