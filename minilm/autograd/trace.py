"""A look at a graph: every operation of a forward and backward pass, with shapes, bytes kept and milliseconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .mode import state
from .tensor import Tensor

__all__ = ["Trace", "TraceRow", "trace"]


@dataclass
class TraceRow:
    """One operation that ran: in the forward pass, and in the backward pass if there was one."""

    index: int
    name: str
    inputs: list[tuple[int, ...]]
    outputs: list[tuple[int, ...]]
    parents: list[int]
    bytes_kept: int
    forward_ms: float
    backward_ms: float | None = None


@dataclass
class Trace:
    """What `trace()` recorded; `print(t)` shows it as a table, `t.dot()` and `t.mermaid()` draw it.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0], requires_grad=True)
    >>> with minilm.autograd.trace() as t:
    ...     (x * x).sum().backward()
    >>> [(row.name, row.parents, row.outputs) for row in t.rows]
    [('multiply', [], [(2,)]), ('sum', [0], [()])]
    """

    rows: list[TraceRow] = field(default_factory=list)
    _by_node: dict = field(default_factory=dict, repr=False)
    _alive: list = field(default_factory=list, repr=False)

    def forward(self, operation, arrays: list, result, seconds: float) -> None:
        """Called by the engine after an operation ran on tensors."""
        outputs = result if isinstance(result, tuple) else (result,)
        node = next((y._node for y in outputs if y._node is not None), None)
        edges = node.edges if node is not None else ()
        parents = [
            self._by_node[id(edge[0])].index for edge in edges if edge is not None and id(edge[0]) in self._by_node
        ]
        row = TraceRow(
            index=len(self.rows),
            name=operation.name,
            inputs=[a.shape for a in arrays if hasattr(a, "shape")],
            outputs=[y.shape for y in outputs],
            parents=parents,
            bytes_kept=_bytes_kept(node),
            forward_ms=seconds * 1e3,
        )
        self.rows.append(row)
        if node is not None:
            self._by_node[id(node)] = row
            self._alive.append(node)  # so that no other node gets its id

    def start(self) -> float:
        """Called by the engine before a gradient rule runs."""
        return time.perf_counter()

    def backward(self, node, started: float) -> None:
        """Called by the engine after a node's gradient rules ran."""
        row = self._by_node.get(id(node))
        if row is not None:
            row.backward_ms = (row.backward_ms or 0.0) + (time.perf_counter() - started) * 1e3

    @property
    def bytes_kept(self) -> int:
        """Bytes that the tape kept for the backward pass, each array counted for each operation that kept it."""
        return sum(row.bytes_kept for row in self.rows)

    def table(self) -> str:
        """The operations in the order in which they ran, one a line."""
        lines = [
            f"{'#':>4}  {'operation':<28} {'output':<22} {'kept':>10} {'forward':>10} {'backward':>10}  inputs from"
        ]
        for row in self.rows:
            backward = "" if row.backward_ms is None else f"{row.backward_ms:.3f} ms"
            shapes = " ".join(_shape(shape) for shape in row.outputs)
            lines.append(
                f"{row.index:>4}  {row.name:<28} {shapes:<22} {_size(row.bytes_kept):>10} {row.forward_ms:>7.3f} ms "
                f"{backward:>10}  {' '.join(f'#{p}' for p in row.parents)}"
            )
        forward = sum(row.forward_ms for row in self.rows)
        backward_total = sum(row.backward_ms or 0.0 for row in self.rows)
        lines.append(
            f"{len(self.rows)} operations, {_size(self.bytes_kept)} kept, forward {forward:.3f} ms, "
            f"backward {backward_total:.3f} ms"
        )
        return "\n".join(lines)

    __str__ = table

    def dot(self) -> str:
        """The graph in Graphviz's language: `dot -Tsvg`, or any viewer of it, draws it."""
        lines = ["digraph trace {", "  rankdir=TB; node [shape=box, fontname=monospace];"]
        for row in self.rows:
            label = f"{row.name}\\n{' '.join(_shape(shape) for shape in row.outputs)}\\n{_size(row.bytes_kept)} kept"
            lines.append(f'  n{row.index} [label="{label}"];')
            lines += [f"  n{parent} -> n{row.index};" for parent in row.parents]
        return "\n".join([*lines, "}"])

    def mermaid(self) -> str:
        """The graph in Mermaid's language, which GitHub and notebooks draw in Markdown."""
        lines = ["flowchart TD"]
        for row in self.rows:
            shapes = " ".join(_shape(shape) for shape in row.outputs)
            lines.append(f'  n{row.index}["{row.name}<br/>{shapes}"]')
            lines += [f"  n{parent} --> n{row.index}" for parent in row.parents]
        return "\n".join(lines)


class trace:
    """Records what runs inside it.

    >>> import minilm
    >>> x = minilm.tensor([[1.0, 2.0]], requires_grad=True)
    >>> with trace() as t:
    ...     (x * x).sum().backward()
    >>> [row.name for row in t.rows]
    ['multiply', 'sum']
    """

    def __enter__(self) -> Trace:
        self._outer = state.trace
        state.trace = Trace()
        return state.trace

    def __exit__(self, *_) -> None:
        state.trace._alive.clear()
        state.trace = self._outer


def _bytes_kept(node) -> int:
    if node is None:
        return 0
    seen: dict[int, int] = {}
    for value in node.kept.values():
        for part in value if isinstance(value, tuple) else (value,):
            array = part._data if isinstance(part, Tensor) else part
            if hasattr(array, "nbytes"):
                seen[id(array)] = array.nbytes
    return sum(seen.values())


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(map(str, shape)) + ")"


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
