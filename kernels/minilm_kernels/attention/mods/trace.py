"""A user's function run once on symbols, statement by statement: what it computes becomes a graph.

Whatever doesn't depend on score, b, h, q or k is plain Python, done here and now: `math.sqrt(d)`, `len(slopes)`, a loop
over `range(3)`, an `if` about a setting. The rest becomes nodes. Of an `if` about a symbol both sides are followed, and
the graph selects.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .arrays import Elements
from .expressions import Expressions, Shared, is_number
from .graph import Graph, Node
from .source import definition_of

__all__ = ["Trace", "trace"]

_ITERATIONS = 1024


@dataclass
class Trace:
    """What tracing a function found: its result, and what it looked up outside itself on the way.

    The function itself isn't kept, so that it can be freed, and the arrays that it uses with it.
    """

    node: Node
    name: str
    text: str
    looked_up: list[tuple[Callable[[], object], object]]

    def is_current(self) -> bool:
        """Whether all that was looked up is still what it was: a number of equal value, or the same object."""
        for ask, before in self.looked_up:
            now = ask()
            if now is not before and not (type(now) is type(before) and is_number(now) and now == before):
                return False
        return True


def trace(function, parameters: tuple[str, ...], graph: Graph) -> Trace:
    """Runs `function` on symbols named `parameters` ("score" and the positions); ValueError where it can't be done."""
    definition = definition_of(function)
    symbols = [graph.score if name == "score" else graph.positions[name] for name in parameters]
    try:
        variables = definition.arguments(symbols, {})
    except TypeError as error:
        expected = ", ".join(parameters)
        raise TypeError(f"{definition.where()}: {error}; it is called with ({expected})") from None
    call = Shared(graph)
    run = _Run(call, definition, 0)
    variables = run.given(definition.node, variables)
    node = run.node(definition.node, run.body(definition.body, variables))
    return Trace(node, definition.where(), definition.text, call.looked_up)


class _Run(Expressions):
    """One call of one function, statement by statement."""

    def body(self, statements: list, variables: dict):
        """What these statements return; ValueError if they may end without returning."""
        returned = self.block(statements, variables)
        if returned is _NOTHING:
            raise ValueError(f"{self.definition.where()} can end without returning anything; return a value everywhere")
        return returned

    def block(self, statements: list, variables: dict):
        """Runs statements, changing `variables`; what they return, or _NOTHING."""
        pending = deque(statements)
        while pending:
            statement = pending.popleft()
            if isinstance(statement, ast.Return):
                if statement.value is None:
                    raise self.refuse(statement, "`return` without a value")
                return self.value(statement.value, variables)
            if isinstance(statement, ast.For):
                pending.extendleft(reversed(self.unrolled(statement, variables)))
            elif isinstance(statement, ast.If):
                condition = self.condition(statement.test, variables)
                if not isinstance(condition, Node):
                    pending.extendleft(reversed(statement.body if condition else statement.orelse))
                elif _returns(statement):
                    with self.one_side():
                        sides = [self.body([*x, *pending], dict(variables)) for x in (statement.body, statement.orelse)]
                    return self.select(statement, condition, *sides)
                else:
                    self.both(statement, condition, variables)
            else:
                self.statement(statement, variables)
        return _NOTHING

    def statement(self, statement, variables: dict) -> None:
        match statement:
            case _Bind():
                self.assign(statement.target, statement.value, variables)
            case ast.Assign():
                value = self.value(statement.value, variables)
                for target in statement.targets:
                    self.assign(target, value, variables)
            case ast.AnnAssign(value=ast.expr()):
                self.assign(statement.target, self.value(statement.value, variables), variables)
            case ast.AugAssign(target=ast.Name()):
                name = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement)
                operation = ast.copy_location(ast.BinOp(name, statement.op, statement.value), statement)
                variables[statement.target.id] = self.value(operation, variables)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise self.refuse(statement, f"`{ast.unparse(statement).splitlines()[0]}`")

    def assign(self, target: ast.expr, value, variables: dict) -> None:
        if isinstance(target, ast.Name):
            variables[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (tuple, list)):
            if len(target.elts) != len(value):
                raise self.refuse(target, f"{len(value)} values assigned to {len(target.elts)} names")
            for part, element in zip(target.elts, value):
                self.assign(part, element, variables)
        else:
            raise self.refuse(target, f"an assignment to `{ast.unparse(target)}`")

    def unrolled(self, loop: ast.For, variables: dict) -> list:
        items = self.value(loop.iter, variables)
        if isinstance(items, (Node, Elements)) or not hasattr(items, "__len__") or loop.orelse:
            raise self.refuse(loop, f"`for` over `{ast.unparse(loop.iter)}`, not known beforehand,")
        if len(items) > _ITERATIONS:
            raise self.refuse(loop, f"`for` over {len(items)} items, more than {_ITERATIONS},")
        numbered = [(item, lambda i=i: items[i] if i < len(items) else None) for i, item in enumerate(items)]
        values = [self.seen(loop.iter, item, ask) for item, ask in numbered]
        return [statement for value in values for statement in (_Bind(loop.target, value), *loop.body)]

    def both(self, statement: ast.If, condition: Node, variables: dict) -> None:
        """Follows both sides; what they leave in a variable is selected from. What one side only sets is unset."""
        yes, no = dict(variables), dict(variables)
        with self.one_side():
            self.block(statement.body, yes)
            self.block(statement.orelse, no)
        variables.clear()
        for name in yes.keys() & no.keys():
            same = yes[name] is no[name]
            variables[name] = yes[name] if same else self.select(statement, condition, yes[name], no[name])


@dataclass
class _Bind:
    """`target = value`, the value known already: an iteration's first statement."""

    target: ast.expr
    value: object


_NOTHING = object()


def _returns(statement: ast.AST) -> bool:
    return any(isinstance(node, ast.Return) for node in ast.walk(statement))
