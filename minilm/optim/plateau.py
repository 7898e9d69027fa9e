"""The schedule that waits for evaluation to stop improving."""

from __future__ import annotations

import math

from . import settings
from .schedules import Schedule

__all__ = ["Plateau"]

_STATE = ("scale", "best", "bad", "cooldown_left")


class Plateau(Schedule):
    """Multiplies learning rates by `factor` when the metric has not improved in more than `patience` evaluations.

    The rules are those of torch.optim.lr_scheduler.ReduceLROnPlateau: a metric is better than the best so far if it is
    below best (1 - threshold) for `threshold_mode="rel"`, below best - threshold for "abs" (`mode="max"`: above
    best (1 + threshold), best + threshold). NaN is never better. After a reduction, `cooldown` evaluations are not
    counted. The product of all factors is never below `min_factor`.

    >>> schedule = Plateau(0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.observe(loss)
    >>> schedule(1000)
    0.5
    """

    def __init__(
        self,
        factor: float = 0.1,
        *,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        mode: str = "min",
        min_factor: float = 0.0,
    ) -> None:
        self.reduction = settings.fraction("factor", factor)
        if self.reduction == 1:
            raise ValueError("factor is 1; expected less, or nothing is ever reduced")
        self.patience = settings.count("patience", patience)
        self.threshold = settings.nonnegative("threshold", threshold)
        self.cooldown = settings.count("cooldown", cooldown)
        self.min_factor = settings.fraction("min_factor", min_factor)
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode is {threshold_mode!r}; expected 'rel' or 'abs'")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}; expected 'min' or 'max'")
        self.threshold_mode, self.mode = threshold_mode, mode
        self.scale = 1.0
        self.best: float | None = None
        self.bad = 0  # evaluations since the last better one
        self.cooldown_left = 0

    def factor(self, step: int) -> float:
        """The product of the reductions so far, whatever the step."""
        return self.scale

    def observe(self, metric: float) -> None:
        """Counts an evaluation whose result is `metric`, and reduces the factor if it was one too many."""
        try:
            metric = float(metric)
        except (TypeError, ValueError):
            raise TypeError(f"metric is {metric!r}; expected a number") from None
        if self._better(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad = 0
        if self.bad > self.patience:
            self.scale = max(self.scale * self.reduction, self.min_factor)
            self.cooldown_left, self.bad = self.cooldown, 0

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, saved: dict) -> None:
        if set(saved) != set(_STATE):
            raise ValueError(f"expected the state {', '.join(_STATE)}; got {', '.join(sorted(saved)) or 'nothing'}")
        for name in _STATE:
            setattr(self, name, saved[name])

    def _better(self, metric: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.best is None:
            return sign * metric < math.inf  # false for NaN
        relative = self.threshold_mode == "rel"
        limit = self.best * (1 - sign * self.threshold) if relative else self.best - sign * self.threshold
        return sign * metric < sign * limit
