"""Which implementations of an operation there are, and which of them runs.

An operation is a folder of this package; an implementation is a function in one of its modules (`reference.py`,
`cpu.py`, `cuda.py`), registered under the operation's name. All implementations of an operation have one signature.
Tests and benchmarks walk `implementations(...)`: whoever registers one is checked and timed without another line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from . import checks, half

__all__ = [
    "Implementation",
    "Refused",
    "array_module",
    "call",
    "choose",
    "device_of",
    "implementations",
    "operations",
    "register",
]


class Refused(ValueError):
    """The implementation asked for, or any, doesn't take these arguments; the message says why."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    `device` is "any", "cpu" or "cuda"; `dtypes` names the dtypes of the first array that it takes (None: every one);
    `limits(*args, **settings)` returns None where it can run and else the reason, as a sentence, why it can't. One that
    is not `automatic` runs only where it is asked for by name.

    >>> entry = implementations("softmax", "cpu")[-1]
    >>> entry.name, entry.device, entry.dtypes
    ('reference', 'any', None)
    """

    operation: str
    name: str
    device: str
    dtypes: frozenset[str] | None
    function: Callable
    limits: Callable[..., str | None] | None
    automatic: bool = True

    def takes(self, dtype: np.dtype) -> bool:
        """Whether the first array may be of this dtype, limits aside; NumPy alone reads another order of bytes."""
        return self.dtypes is None or (dtype.isnative and dtype.name in self.dtypes)

    def refusal(self, args: tuple, settings: dict) -> str | None:
        """Why this implementation can't run on these arguments; None if it can."""
        array = _first_array(args)
        if self.device not in ("any", device_of(array)):
            return f"it runs on {self.device}, and the arrays are on {device_of(array)}"
        if self.dtypes is not None and not self.takes(array.dtype):
            given = array.dtype.name if array.dtype.isnative else f"{array.dtype}, of another order of bytes"
            return f"it takes {', '.join(sorted(self.dtypes))}, and the arrays are {given}"
        return self.limits(*args, **settings) if self.limits is not None else None


_registry: dict[str, dict[str, Implementation]] = {}


def register(
    operation: str, *, name: str, device: str = "any", dtypes=None, limits=None, automatic: bool = True
) -> Callable:
    """Decorator: makes a function an implementation of `operation` under `name`.

    The name "reference" is the specification's; everything else is preferred to it, the last registered first, except
    what is not `automatic`: that is only run by name (`implementation="..."`), and tested and timed like the others.
    """
    if device not in ("any", "cpu", "cuda"):
        raise ValueError(f"device is 'any', 'cpu' or 'cuda', not {device!r}")

    def add(function: Callable) -> Callable:
        takes = frozenset(dtypes) if dtypes else None
        entry = Implementation(operation, name, device, takes, function, limits, automatic)
        _registry.setdefault(operation, {})[name] = entry
        _candidates.cache_clear()
        return function

    return add


def operations() -> list[str]:
    """The names of all operations in the package, backward passes included.

    >>> "attention" in operations()
    True
    """
    for folder in _folders():
        _load(folder, "any")
    return sorted(_registry)


def implementations(operation: str, device: str | None = None) -> list[Implementation]:
    """The implementations of `operation` (on `device`, if given), the reference last. ValueError for an unknown one.

    >>> [entry.name for entry in implementations("rms_norm", "cpu")]
    ['cpu', 'reference']
    """
    for target in ("cpu", "cuda") if device is None else (device,):
        _load(_folder(operation), target)
    _load_named(operation)
    if operation not in _registry:
        raise ValueError(f"no operation is named {operation!r}; there are: {', '.join(operations())}")
    return [entry for entry in _ordered(operation) if device is None or entry.device in ("any", device)]


def call(operation: str, implementation: str, *args, **settings):
    """Runs `operation` by the implementation named, or for "auto" by the first that takes these arguments.

    >>> call("softmax", "reference", np.zeros((1, 4)), axis=-1)
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    array = _first_array(args)
    device = device_of(array)
    if "cupy" in sys.modules:
        _check_together(operation, device, (*args, *settings.values()))
    for entry in _candidates(operation, implementation, device, array.dtype):  # as `choose`, without a call more
        if entry.limits is None or entry.limits(*args, **settings) is None:
            found = entry.function(*args, **settings)
            plain = entry.name == "reference" and array.dtype.kind == "V"
            return _kept(found, array.dtype, half.STATISTICS.get(operation, ())) if plain else found
    raise _no_implementation(operation, implementation, args, settings)


def choose(operation: str, implementation: str, *args, **settings) -> Implementation | None:
    """The implementation that `call` would run these arguments by; None if none takes them.

    For a caller that has a better way than the reference where no kernel does it.

    >>> choose("rms_norm", "auto", np.zeros((1, 4), np.float32), None, eps=1e-6).name
    'cpu'
    """
    array = _first_array(args)
    candidates = _candidates(operation, implementation, device_of(array), array.dtype)
    return next((entry for entry in candidates if entry.refusal(args, settings) is None), None)


def array_module(array):
    """The module, `numpy` or `cupy`, that `array` belongs to; anything else is a TypeError.

    >>> array_module(np.ones(2)).__name__
    'numpy'
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    device_of(array)
    return sys.modules["cupy"]


def device_of(array) -> str:
    """ "cpu" for a NumPy array, "cuda" for a CuPy array; anything else is a TypeError.

    >>> device_of(np.ones(2))
    'cpu'
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return "cpu"
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return "cuda"
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}; convert it with numpy.asarray first")


def _check_together(operation: str, device: str, values: tuple) -> None:
    """ValueError unless all arrays are on the first one's device; CuPy's own error, where it has one, names neither."""
    cupy = sys.modules["cupy"]
    other = np.ndarray if device == "cuda" else getattr(cupy, "ndarray", ())
    if any(isinstance(value, other) for value in values):
        raise ValueError(
            f"{operation} got arrays on different devices, cpu and cuda; move them together, with cupy.asarray(array) "
            "or array.get()"
        )


def _kept(found, dtype: np.dtype, wide: tuple[int, ...] = ()):
    """What the reference found of arrays in bfloat16, which numbers beside them make float32, in bfloat16 again.

    `wide` numbers the results that stay float32.
    """
    if isinstance(found, tuple):
        return tuple(part if i in wide else _kept(part, dtype) for i, part in enumerate(found))
    floats = hasattr(found, "astype") and found.dtype.kind == "f"
    return found.astype(dtype) if floats else found


def _first_array(args: tuple):
    first = args[0]
    return first[0] if isinstance(first, (list, tuple)) else first


@cache
def _candidates(operation: str, implementation: str, device: str, dtype: np.dtype) -> tuple[Implementation, ...]:
    _load(_folder(operation), device)
    if implementation not in ("auto", *_registry.get(operation, ())):
        _load_named(operation)
    found = tuple(
        entry
        for entry in _ordered(operation)
        if (entry.automatic if implementation == "auto" else implementation == entry.name)
        and entry.device in ("any", device)
        and entry.takes(dtype)  # the name costs microseconds: asked once, here
    )
    alone = implementation == "auto" and [entry.name for entry in found] == ["reference"]
    if alone and device == "cpu" and operation in half.OPERATIONS and checks.is_half(dtype):
        through = half.through_float32(operation, call)
        return (Implementation(operation, "float32", "cpu", frozenset([dtype.name]), through, None),)
    return found


def _ordered(operation: str) -> list[Implementation]:
    entries = list(_registry.get(operation, {}).values())[::-1]
    return sorted(entries, key=lambda entry: entry.name == "reference")


def _no_implementation(operation: str, implementation: str, args: tuple, settings: dict) -> Exception:
    known = implementations(operation)
    if implementation != "auto" and implementation not in {entry.name for entry in known}:
        names = ", ".join(repr(entry.name) for entry in known)
        return ValueError(f"{operation} has no implementation {implementation!r}; there are: 'auto', {names}")
    asked = [entry for entry in known if implementation in ("auto", entry.name)]
    reasons = "; ".join(f"{entry.name!r}: {entry.refusal(args, settings)}" for entry in asked)
    return Refused(f"{operation} can't run on these arguments. {reasons}")


def _folder(operation: str) -> str:
    return operation.removesuffix("_backward")


@cache
def _folders() -> tuple[str, ...]:
    import pkgutil

    return tuple(module.name for module in pkgutil.iter_modules(sys.modules[__package__].__path__) if module.ispkg)


def _load_named(operation: str) -> None:
    """Imports what is written to be read, and runs by name alone, when somebody asks for all or for such a name."""
    for module in ("ladder", "numba_cuda"):
        _load(_folder(operation), module)


@cache
def _load(folder: str, device: str) -> None:
    """Imports the modules of an operation that hold implementations for `device` (numba only when it is needed)."""
    if folder not in _folders():
        return
    for target in ("reference", device):
        module = f"{__package__}.{folder}.{target}"
        if target != "any" and importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
