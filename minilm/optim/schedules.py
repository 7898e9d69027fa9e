"""Learning-rate schedules: functions of the step alone, so that a run resumes by knowing its step."""

from __future__ import annotations

import math

from . import settings

__all__ = ["Constant", "Cosine", "InverseSqrt", "Linear", "Schedule", "Warmup", "WarmupStableDecay"]


class Schedule:
    """A factor for each step, counted from 0, by which every parameter group's own learning rate is multiplied.

    One of one's own needs only `factor(step)`. Those that depend on more than the step define `observe` and the state.

    >>> class Halving(Schedule):
    ...     def factor(self, step):
    ...         return 0.5 ** (step // 100)
    >>> Halving()(250)
    0.25
    """

    def factor(self, step: int) -> float:
        """What learning rates are multiplied by for the update number `step`."""
        raise NotImplementedError(f"{type(self).__name__} has to define factor(step)")

    def __call__(self, step: int) -> float:
        return self.factor(settings.count("step", step))

    def apply(self, optimizer, step: int) -> float:
        """Sets the learning rate of each group for the update number `step`, and returns the factor.

        A group's base is its entry "initial_lr", made from its "lr" at the first call (and saved with the optimiser).
        """
        factor = self(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        return factor

    def observe(self, metric: float) -> None:
        """Tells the schedule an evaluation's result. Only `Plateau` depends on it."""

    def state_dict(self) -> dict:
        """What is to be saved beside the step, as JSON can hold it: nothing, but for `Plateau`."""
        return {}

    def load_state_dict(self, saved: dict) -> None:
        """Goes on from `state_dict()`."""
        if saved:
            raise ValueError(f"{type(self).__name__} has no state; the state given has {', '.join(sorted(saved))}")


class Constant(Schedule):
    """1 at every step.

    >>> Constant()(1000)
    1.0
    """

    def factor(self, step: int) -> float:
        return 1.0


class Linear(Schedule):
    """From 1 at step 0 on a straight line to `min_factor` at step `steps`, and there from then on.

    >>> Linear(10)(5)
    0.5
    """

    def __init__(self, steps: int, min_factor: float = 0.0) -> None:
        self.steps = settings.count("steps", steps, 1)
        self.min_factor = settings.fraction("min_factor", min_factor)

    def factor(self, step: int) -> float:
        return self.min_factor + (1 - self.min_factor) * (1 - min(step / self.steps, 1.0))


class Cosine(Schedule):
    """From 1 at step 0 along half a cosine to `min_factor` at step `steps`, and there from then on.

    factor = min_factor + (1 - min_factor) (1 + cos(pi step / steps)) / 2   (Loshchilov & Hutter 2016, arXiv:1608.03983)

    >>> Cosine(10, min_factor=0.1)(10)
    0.1
    """

    def __init__(self, steps: int, min_factor: float = 0.0) -> None:
        self.steps = settings.count("steps", steps, 1)
        self.min_factor = settings.fraction("min_factor", min_factor)

    def factor(self, step: int) -> float:
        return self.min_factor + (1 - self.min_factor) * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))


_DECAYS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


class WarmupStableDecay(Schedule):
    """1 until `decay` steps before step `steps`, then down to `min_factor` there (Hu et al. 2024, arXiv:2404.06395).

    The plateau may be prolonged, and decayed from any point: that is the use of it. `shape` of the decay, x its part
    gone by: "linear" 1 - x, "cosine" (1 + cos(pi x)) / 2, or "1-sqrt" 1 - sqrt(x) (Hägele et al. 2024,
    arXiv:2405.18392, who found a fifth of the steps enough; `decay=None` is that). Warm-up comes from `Warmup`.

    >>> schedule = WarmupStableDecay(100, decay=20)
    >>> schedule(80), schedule(90), schedule(100)
    (1.0, 0.5, 0.0)
    """

    def __init__(self, steps: int, decay: int | None = None, min_factor: float = 0.0, shape: str = "linear") -> None:
        self.steps = settings.count("steps", steps, 1)
        self.decay = max(1, self.steps // 5) if decay is None else settings.count("decay", decay, 1)
        self.min_factor = settings.fraction("min_factor", min_factor)
        if self.decay > self.steps:
            raise ValueError(f"decay is {self.decay} steps of {self.steps}; expected at most all of them")
        if shape not in _DECAYS:
            raise ValueError(f"shape is {shape!r}; expected one of {', '.join(map(repr, _DECAYS))}")
        self.shape = shape

    def factor(self, step: int) -> float:
        part = min(max(step - (self.steps - self.decay), 0) / self.decay, 1.0)
        return self.min_factor + (1 - self.min_factor) * _DECAYS[self.shape](part)


class InverseSqrt(Schedule):
    """Falls as one over the square root of the step, after `warmup` steps; with n = step + 1 and k = `warmup`:

        factor = min(n / k, sqrt(k / n))           (Vaswani et al. 2017, arXiv:1706.03762, with a peak of 1)
        factor = min(1, sqrt(k / n))               (`flat`: Raffel et al. 2019, T5, arXiv:1910.10683)

    It is never below `min_factor` after the warm-up.

    >>> schedule = InverseSqrt(warmup=100)
    >>> schedule(49), schedule(99), schedule(399)
    (0.5, 1.0, 0.5)
    """

    def __init__(self, warmup: int, *, flat: bool = False, min_factor: float = 0.0) -> None:
        self.warmup = settings.count("warmup", warmup, 1)
        self.flat = settings.flag("flat", flat)
        self.min_factor = settings.fraction("min_factor", min_factor)

    def factor(self, step: int) -> float:
        n = step + 1
        if n <= self.warmup:
            return 1.0 if self.flat else n / self.warmup
        return max(math.sqrt(self.warmup / n), self.min_factor)


class Warmup(Schedule):
    """`steps` steps on a straight line up to where `schedule` begins, then `schedule`, counted from there.

    factor = (step + 1) / (steps + 1) schedule(0) for step < steps, else schedule(step - steps); as in nanoGPT

    >>> schedule = Warmup(Linear(10), steps=4)
    >>> schedule(0), schedule(4), schedule(14)
    (0.2, 1.0, 0.0)
    """

    def __init__(self, schedule: Schedule, steps: int) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule is a {type(schedule).__name__}; expected the Schedule to follow the warm-up")
        self.schedule = schedule
        self.steps = settings.count("steps", steps)

    def factor(self, step: int) -> float:
        if step < self.steps:
            return (step + 1) / (self.steps + 1) * self.schedule.factor(0)
        return self.schedule.factor(step - self.steps)

    def observe(self, metric: float) -> None:
        self.schedule.observe(metric)

    def state_dict(self) -> dict:
        return self.schedule.state_dict()

    def load_state_dict(self, saved: dict) -> None:
        self.schedule.load_state_dict(saved)
