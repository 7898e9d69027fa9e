"""The jinja2 environment of chat templates: what transformers offers in it, inside a sandbox with a budget.

jinja2's own sandbox keeps a template from code and from other objects, not from looping for ever or filling the memory.
Here each loop, call and `range` is paid for in steps, and each text that is made in characters. The module imports
jinja2, so only `chat` imports it, when a template is first rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from itertools import islice

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace, pass_environment
from jinja2.visitor import NodeTransformer

__all__ = ["environment"]

MOST_STEPS = 1_000_000
MOST_TEXT = 200_000_000
_MOST_NUMBER = 1_000_000  # of a width, a precision, a repetition
_WIDE_FORMAT = re.compile(r"\d{7}")
_WIDTH_BY_VALUE = re.compile(r"%[^a-zA-Z]*\*|\{[^{}]*\{")
_WITH_SIZES = ("batch", "center", "indent", "round", "slice", "truncate", "wordwrap")

_left: ContextVar[list[int]] = ContextVar("budget")


def _pay(steps: int = 0, text: int = 0) -> None:
    left = _left.get(None)
    if left is None:  # while compiling: jinja2 folds constants
        left = [MOST_STEPS, MOST_TEXT]
    left[0] -= steps
    left[1] -= text
    if left[0] < 0:
        raise SecurityError(f"it takes more than {MOST_STEPS:,} steps")
    if left[1] < 0:
        raise SecurityError(f"it makes more than {MOST_TEXT:,} characters of text")


class Environment(ImmutableSandboxedEnvironment):
    """`with environment.budget(): template.render(...)`; SecurityError for whatever is forbidden or too much."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters = {name: _paid(name, function) for name, function in self.filters.items()}
        self.filters |= {"tojson": _tojson, "join": _join, "replace": _replace, "counted ": _counted}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.globals |= {"namespace": _Namespace, "dict": _Dict(), "range": _range}
        self.globals.pop("lipsum")

    @contextmanager
    def budget(self):
        """A new budget for what is rendered inside."""
        token = _left.set([MOST_STEPS, MOST_TEXT])
        try:
            yield
        finally:
            _left.reset(token)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What jinja2 joins the text of blocks and macros with."""
        pieces = list(pieces)
        _pay(text=sum(map(len, pieces)))
        return "".join(pieces)

    def call_binop(self, context, operator, left, right):
        if operator == "+":
            _pay(text=_size(left) + _size(right))
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    _pay(text=_size(one) * max(times, 0))
        elif operator == "**":
            _check_numbers((left, right), limit=1000)
        elif operator == "%":
            _check_format(left, right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)

    def call(self, context, function, *args, **kwargs):
        _pay(steps=1)
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, function.__name__, args, kwargs)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value):
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @wraps(wrapped)
        def checked(*args, **kwargs):
            _check_format(value.__self__, (*args, *kwargs.values()))
            return wrapped(*args, **kwargs)

        return checked

    def unsafe_undefined(self, value, attribute):
        raise SecurityError(f"it reads {attribute!r} of a {type(value).__name__}")

    def _parse(self, source, name, filename):
        return _Paid().visit(super()._parse(source, name, filename))


class _Paid(NodeTransformer):
    """Loops count what they go through, and `a ~ b` is the filter `[a, b] | join`, which pays for its text."""

    def visit_For(self, node):
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "counted ", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node):
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes, lineno=node.lineno), "join", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what an assistant said, for training; here it is its content."""

    tags = frozenset({"generation"})

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """jinja2's namespace without underscored names, as in transformers."""

    def __init__(*args, **kwargs):  # `self` may be one of the names
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class _Dict:
    """`dict(...)` and `dict.fromkeys(...)`, and nothing else of the class."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


def _check_name(name) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no underscored name, such as {name!r}")


def _size(value) -> int:
    """What a text or a list weighs, in characters."""
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, list | tuple) else 0


def _raise_exception(message):
    raise TemplateError(str(message))


def _strftime_now(format):
    return datetime.now().strftime(format)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON as it is: jinja2's own filter escapes it for HTML."""
    _check_numbers((indent,))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    _pay(text=len(text))
    return text


def _range(*arguments):
    numbers = range(*arguments)
    _pay(steps=len(numbers))
    return numbers


def _counted(values):
    if not hasattr(values, "__len__"):
        values = list(islice(values, MOST_STEPS + 1))
    _pay(steps=len(values))
    return values


@pass_environment
def _join(environment, value, d="", attribute=None):
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    texts, d = [str(text) for text in value], str(d)
    _pay(text=sum(map(len, texts)) + len(d) * len(texts))
    return d.join(texts)


def _replace(s, old, new, count=None):
    s, old, new = str(s), str(old), str(new)
    _pay(text=len(s) + s.count(old) * len(new))
    return s.replace(old, new, -1 if count is None else count)


def _paid(name: str, function):
    """A filter that costs a step and its texts, and takes no format and no width that would fill the memory."""

    @wraps(function)  # with jinja2's marks on it, such as "pass the environment first"
    def paid(*args, **kwargs):
        _pay(steps=1, text=sum(len(value) for value in args if isinstance(value, str)))
        if name in _WITH_SIZES:
            given = [value for value in args if not isinstance(value, Environment)]
            _check_numbers((*given[1:], *kwargs.values()))
        elif name == "format":
            _check_format(args[0], args[1:])
        return function(*args, **kwargs)

    return paid


def _check_method(text: str, name: str, args, kwargs) -> None:
    """The methods of a text that can make a much longer one."""
    _pay(text=len(text))
    if name == "replace" and len(args) >= 2:
        _pay(text=text.count(str(args[0])) * len(str(args[1])))
    elif name == "join" and args and hasattr(args[0], "__len__"):
        _pay(text=sum(len(text) + len(str(one)) for one in args[0]))
    _check_numbers((*args, *kwargs.values()))


def _check_format(text, values) -> None:
    """Widths are written in the format (`%9d`, `{:9}`), or are values themselves (`%*d`, `{:{}}`)."""
    if isinstance(text, str):
        if _WIDE_FORMAT.search(text):
            raise SecurityError("it formats to an enormous width")
        if _WIDTH_BY_VALUE.search(text):
            _check_numbers(values)


def _check_numbers(values, limit: int = _MOST_NUMBER) -> None:
    for value in values:
        if isinstance(value, int | float) and abs(value) > limit:
            raise SecurityError(f"it works with the number {value}; at most {limit:,} is allowed here")


environment = Environment()
