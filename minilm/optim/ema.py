"""A running average of weights, to evaluate with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minilm import backend

from . import settings
from .parameters import named_tensors

__all__ = ["EMA"]


class EMA:
    """Exponential moving average of weights (Polyak & Juditsky 1992): smoother than the last ones, often better.

        a <- a + (1 - d) (p - a),   d = decay      (`warmup`: d = min(decay, (1 + n) / (10 + n)) at the n-th update)

    `parameters` is a module, or an iterable of tensors or (name, tensor) pairs; the averages begin as copies of them.
    Warm-up forgets the first, random weights sooner. Call `update()` after each step of the optimiser. Buffers that are
    no parameters are not averaged. ValueError for a decay outside [0, 1].

    >>> w = minilm.tensor([0.0], requires_grad=True)
    >>> ema = EMA([("w", w)], decay=0.9)
    >>> w.data[:] = 1.0
    >>> ema.update()
    >>> with ema.swap():
    ...     print(w)
    tensor([0.1], requires_grad=True)
    >>> w
    tensor([1.], requires_grad=True)
    """

    def __init__(self, parameters, decay: float = 0.999, *, warmup: bool = False) -> None:
        if hasattr(parameters, "named_parameters"):
            parameters = parameters.named_parameters()
        self.decay = settings.fraction("decay", decay)
        self.warmup = settings.flag("warmup", warmup)
        self.updates = 0
        self._swapped = False
        unique: dict = {}
        for i, (name, parameter) in enumerate(named_tensors(parameters, "parameters")):
            unique.setdefault(parameter, str(i) if name is None else name)
        if not unique:
            raise ValueError("EMA got no parameters; an iterator that was used up before is empty as well")
        self._parameters = {name: parameter for parameter, name in unique.items()}
        if len(self._parameters) < len(unique):
            raise ValueError("two parameters have one name; averages are saved by name, so names must differ")
        self._averages = {name: parameter.data.copy() for name, parameter in self._parameters.items()}

    def update(self) -> None:
        """Moves the averages towards the weights; RuntimeError inside `swap()`, where the two have changed places."""
        self._check_not_swapped("update()")
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        for name, parameter in self._parameters.items():
            average = self._averages[name]
            if average.shape != parameter.shape or average.dtype != parameter.dtype or not self._together(name):
                raise ValueError(
                    f"the average of {name} is {average.dtype} {average.shape} on {backend.device_of(average)}, and by "
                    f"now the parameter is {parameter.dtype} {parameter.shape} on {parameter.device}; make the EMA "
                    "after converting or moving the model"
                )
            average += (1 - decay) * (parameter.data - average)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Inside `with ema.swap():` the parameters have the averages as their values; nothing is copied.

        Afterwards they have their own again, also if an exception ended the block. Do not train inside it.
        """
        self._check_not_swapped("swap()")
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict:
        """`{"arrays": name -> average, "settings": what JSON can hold}`; the arrays are not copies."""
        self._check_not_swapped("state_dict()")
        about = {"decay": self.decay, "warmup": self.warmup, "updates": self.updates}
        return {"arrays": dict(self._averages), "settings": about}

    def load_state_dict(self, saved: dict) -> None:
        """Goes on from `state_dict()` of the same parameters; ValueError, and nothing changed, if they are others."""
        self._check_not_swapped("load_state_dict()")
        if not isinstance(saved, dict) or set(saved) != {"arrays", "settings"}:
            raise ValueError("expected what state_dict() returned: a dict with the entries 'arrays' and 'settings'")
        arrays, about = saved["arrays"], saved["settings"]
        for name in sorted(set(arrays) ^ set(self._averages)):
            where = "is not in this EMA" if name in arrays else "is missing from the state"
            raise ValueError(f"the average of {name!r} {where}; make the EMA of the model that was saved")
        for name, average in self._averages.items():
            if tuple(arrays[name].shape) != average.shape or arrays[name].dtype != average.dtype:
                raise ValueError(
                    f"the average of {name!r} is {arrays[name].dtype} {tuple(arrays[name].shape)} in the state; "
                    f"expected {average.dtype} {average.shape}"
                )
        decay, warmup = settings.fraction("decay", about["decay"]), settings.flag("warmup", about["warmup"])
        self.updates = settings.count("updates", about["updates"])
        self.decay, self.warmup = decay, warmup
        for name, average in self._averages.items():
            average[...] = backend.to_device(arrays[name], backend.device_of(average))

    def _together(self, name: str) -> bool:
        arrays = self._averages[name], self._parameters[name].data
        return backend.array_module(arrays[0]) is backend.array_module(arrays[1])

    def _exchange(self) -> None:
        self._swapped = not self._swapped
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data

    def _check_not_swapped(self, what: str) -> None:
        if self._swapped:
            raise RuntimeError(f"{what} inside swap(): weights and averages have changed places; leave the block first")
