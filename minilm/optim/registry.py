"""Schedules by name, for a command line or a configuration file."""

from __future__ import annotations

import inspect

from . import settings
from .plateau import Plateau
from .schedules import Constant, Cosine, InverseSqrt, Linear, Schedule, Warmup, WarmupStableDecay

__all__ = ["SCHEDULES", "make_schedule"]

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "wsd": WarmupStableDecay,
    "inverse_sqrt": InverseSqrt,
    "plateau": Plateau,
}


def make_schedule(
    name: str, *, steps: int | None = None, warmup: int = 0, min_factor: float = 0.0, **options
) -> Schedule:
    """The schedule of this name, from the settings that all of them share.

    `steps` is the length of the run, warm-up included ("linear", "cosine" and "wsd" end there; the others do not
    depend on it); `warmup` the steps of linear warm-up; `min_factor` what the factor never falls below after it.
    `options` are the schedule's own: `decay` and `shape` of "wsd", `flat` of "inverse_sqrt", those of `Plateau`.
    ValueError for an unknown name or a run no longer than its warm-up, TypeError for an option that the schedule lacks.

    >>> schedule = make_schedule("cosine", steps=1000, warmup=100, min_factor=0.1)
    >>> schedule(100), schedule(1000)
    (1.0, 0.1)
    """
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}; expected one of {', '.join(SCHEDULES)}, and options by name")
    if name not in SCHEDULES:
        raise ValueError(f"no schedule is named {name!r}; there are: {', '.join(SCHEDULES)}")
    kind = SCHEDULES[name]
    warmup = settings.count("warmup", warmup)
    shared = {"min_factor": settings.fraction("min_factor", min_factor)}
    accepted = inspect.signature(kind).parameters
    if "steps" in accepted:
        shared["steps"] = _after_warmup(name, steps, warmup)
    elif steps is not None:
        settings.count("steps", steps, 1)
    if "warmup" in accepted:  # part of its own formula
        shared["warmup"], warmup = warmup, 0
    own = sorted(set(accepted) - {"steps", "warmup", "min_factor"})
    all_of_them = ", ".join([*own, "steps", "warmup", "min_factor"])
    for option in options:
        if option not in own:
            raise TypeError(f"the schedule {name!r} has no option {option!r}; it has: {all_of_them}")
    schedule = kind(**{key: value for key, value in shared.items() if key in accepted}, **options)
    return Warmup(schedule, warmup) if warmup else schedule


def _after_warmup(name: str, steps: int | None, warmup: int) -> int:
    if steps is None:
        raise ValueError(f"the schedule {name!r} needs steps, the length of the run")
    if settings.count("steps", steps, 1) <= warmup:
        raise ValueError(f"steps is {steps} and warmup {warmup}; the run has to be longer than its warm-up")
    return steps - warmup
