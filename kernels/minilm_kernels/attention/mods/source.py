"""A user's function as syntax: where it is written, and what the names in it stand for."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Definition", "definition_of", "is_plain_function"]


@dataclass(frozen=True)
class Definition:
    """A function's parameters and body; `given` are arguments bound beforehand (`self`, those of a partial)."""

    function: types.FunctionType
    node: ast.FunctionDef | ast.Lambda
    file: str
    given: tuple = ()
    given_by_name: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def body(self) -> list[ast.stmt]:
        node = self.node
        return [ast.copy_location(ast.Return(node.body), node.body)] if isinstance(node, ast.Lambda) else node.body

    @property
    def text(self) -> str:
        return ast.unparse(self.node)

    def where(self, node: ast.AST | None = None) -> str:
        return f"{self.name} ({self.file}:{getattr(node, 'lineno', None) or self.node.lineno})"

    def lookup(self, name: str) -> tuple[object, Callable[[], object] | None]:
        """What a name that the function doesn't assign stands for, and how to ask again (None: it is Python's own).

        KeyError if nothing.
        """
        code = self.function.__code__
        if name in code.co_freevars:
            cell = self.function.__closure__[code.co_freevars.index(name)]
            try:
                return cell.cell_contents, lambda: getattr(cell, "cell_contents", None)
            except ValueError:
                raise KeyError(name) from None
        names = self.function.__globals__
        if name in names:
            return names[name], lambda: names.get(name)
        value = getattr(builtins, name, None)
        if value is None:
            raise KeyError(name)
        return value, None

    def arguments(self, positional: list, by_name: dict) -> dict[str, object]:
        """The function's variables at its start, given a call's arguments; TypeError if they don't fit."""
        bound = inspect.signature(self.function).bind(
            *self.given, *positional, **{**dict(self.given_by_name), **by_name}
        )
        bound.apply_defaults()
        return dict(bound.arguments)


def is_plain_function(value) -> bool:
    """Whether `value` is, or wraps, a function written in Python."""
    return isinstance(_unwrapped(value)[0], types.FunctionType)


def definition_of(function) -> Definition:
    """The definition of a function, lambda, method, partial, or object with a `__call__` method.

    TypeError if it is none of them, ValueError if its source can't be found.
    """
    plain, given, by_name = _unwrapped(function)
    if not isinstance(plain, types.FunctionType):
        raise TypeError(f"{function!r} is not a function written in Python")
    code = plain.__code__
    try:
        lines, _ = inspect.findsource(plain)
        tree = _parsed("".join(lines))
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"the source of {plain.__name__} can't be read ({error}), and it is compiled from its source: write it in "
            "a file or a notebook cell, not in a string given to exec"
        ) from None
    found = [node for node in _functions(tree) if _is_of(node, code)]
    if not found:
        raise ValueError(
            f"{plain.__name__} can't be found in {code.co_filename}, line {code.co_firstlineno}: has the file changed "
            "since it was imported? Import it again, or write the function with def on a line of its own"
        )
    return Definition(plain, found[-1], code.co_filename, given, tuple(by_name.items()))


def _unwrapped(value) -> tuple[object, tuple, dict]:
    given, by_name = (), {}
    while not isinstance(value, types.FunctionType):
        if isinstance(value, functools.partial):
            value, given, by_name = value.func, (*value.args, *given), {**value.keywords, **by_name}
        elif isinstance(value, types.MethodType):
            value, given = value.__func__, (value.__self__, *given)
        elif not isinstance(value, type) and isinstance(vars(type(value)).get("__call__"), types.FunctionType):
            value, given = vars(type(value))["__call__"], (value, *given)
        else:
            break
    return value, given, by_name


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.Lambda]:
    """All of them, the inner ones after those that they stand in."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda))]


def _is_of(node: ast.FunctionDef | ast.Lambda, code: types.CodeType) -> bool:
    """Whether `code` was compiled from `node`."""
    if isinstance(node, ast.FunctionDef):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return (node.name, first) == (code.co_name, code.co_firstlineno)
    if code.co_name != "<lambda>" or node.lineno != code.co_firstlineno:
        return False
    # Several may stand on a line: an instruction's place tells which one it belongs to. The last one returns the body.
    # Several may stand on a line: the places of the instructions tell which one they belong to.
    body = node.body
    first, last = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    places = [place for place in code.co_positions() if None not in place and place[2:] != (0, 0)]
    return all(first <= (line, column) and (end, end_column) <= last for line, end, column, end_column in places)
