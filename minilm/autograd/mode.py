"""What the engine is doing right now, in this thread: recording or not, watching for NaN or not, tracing or not."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator

import numpy as np

__all__ = ["detect_anomaly", "enable_grad", "is_grad_enabled", "no_grad", "state"]


class _State(threading.local):
    recording = True
    anomaly = False
    trace = None
    autocast = None  # the innermost `autocast` block


state = _State()


def is_grad_enabled() -> bool:
    """Whether operations are recorded for a backward pass.

    >>> import minilm
    >>> with minilm.no_grad():
    ...     is_grad_enabled()
    False
    """
    return state.recording


class _Switch(ContextDecorator):
    """Sets one attribute of the state for the length of a `with` block or a decorated function; may be nested."""

    attribute: str
    value: bool

    def __init__(self, *given) -> None:
        if given:
            name = type(self).__name__
            raise TypeError(f"{name} takes no arguments: `with {name}():`, or @{name}() above a function")
        self._before: list[bool] = []

    def __enter__(self):
        self._before.append(getattr(state, self.attribute))
        setattr(state, self.attribute, self.value)
        return self

    def _recreate_cm(self):  # a decorated function may run in several threads at once: each call has its own
        return type(self)()

    def __exit__(self, *_) -> None:
        setattr(state, self.attribute, self._before.pop())


class no_grad(_Switch):
    """Inside it nothing is recorded: results never require a gradient. A context manager and a decorator.

    >>> import minilm
    >>> x = minilm.tensor([1.0], requires_grad=True)
    >>> with minilm.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    attribute, value = "recording", False


class enable_grad(_Switch):
    """Undoes an outer `no_grad`.

    >>> import minilm
    >>> x = minilm.tensor([1.0], requires_grad=True)
    >>> with minilm.no_grad(), minilm.enable_grad():
    ...     y = x * 2
    >>> y.requires_grad
    True
    """

    attribute, value = "recording", True


class detect_anomaly(_Switch):
    """Inside it, forward and backward, the first operation that makes a NaN or inf is named in a FloatingPointError.

    The error of a backward pass shows the line of the forward pass that called the operation. Every array is looked
    at, which takes time: for finding a fault, not for training.

    >>> import minilm
    >>> with minilm.autograd.detect_anomaly():
    ...     minilm.tensor([1.0, -1.0]).log()
    Traceback (most recent call last):
    ...
    FloatingPointError: ...
    """

    attribute, value = "anomaly", True

    def __enter__(self):
        self._quiet = np.errstate(all="ignore")  # NumPy's warnings would come first, and name less
        self._quiet.__enter__()
        return super().__enter__()

    def __exit__(self, *details) -> None:
        super().__exit__(*details)
        self._quiet.__exit__(*details)
