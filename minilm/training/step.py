"""One step of the optimiser: forward and backward passes over the batches, clipping, the update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minilm import backend
from minilm.autograd import autocast
from minilm.autograd.precision import PRECISIONS, check_precision
from minilm.optim import GradScaler, clip_coefficient, grad_norm

from .arguments import mean_loss

__all__ = ["Outcome", "TrainingStep"]


class Outcome(NamedTuple):
    """The mean loss, the norm of the mean gradient, and whether the weights were changed."""

    loss: float
    norm: float
    updated: bool


class TrainingStep:
    """Called with batches, takes a step in `precision`; a step whose loss or gradient is not finite changes nothing.

    The weights, their gradients' sum and the optimiser stay float32 in every precision. In "fp16" the loss is scaled
    (`scaler`), and a step whose gradient overflowed lowers the scale.
    """

    refused: str | None = None  # why a step is not launched as one, where it might have been

    def __init__(self, model, optimizer, *, grad_clip: float = 0.0, precision: str = "fp32") -> None:
        check_precision(precision, model.device)
        self.model, self.optimizer, self.grad_clip, self.precision = model, optimizer, grad_clip, precision
        self.parameters = list(model.parameters())
        self.scaler = GradScaler() if precision == "fp16" else None

    def __call__(self, batches: Sequence[tuple]) -> Outcome:
        """A step over `batches`, (inputs, targets) on any device."""
        loss, norm = self.gradients(batches)
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            clip = clip_coefficient(norm, self.grad_clip) if self.grad_clip else 1.0
            self.optimizer.step(grad_scale=clip / self._factor(len(batches)))
        self.optimizer.zero_grad()
        if self.scaler and math.isfinite(loss):
            self.scaler.update(finite)
        return Outcome(loss, norm, finite)

    def forget(self) -> None:
        """Gives up what is kept from step to step to be quick, and the memory that it takes."""

    def gradients(self, batches: Sequence[tuple]) -> tuple[float, float]:
        """Adds up the gradients of the batches in `.grad`; their mean loss, and the norm of the mean gradient."""
        losses = []
        expected = {"over": "ignore", "invalid": "ignore"} if self.scaler else {}  # with a scale that is too high
        with backend.tf32(self.precision == "tf32"), np.errstate(**expected):
            for inputs, targets in batches:
                inputs, targets = (backend.to_device(ids, self.model.device) for ids in (inputs, targets))
                with autocast(PRECISIONS[self.precision]):
                    loss = mean_loss(self.model, inputs, targets)
                loss.backward(self.scaler.scale if self.scaler else None)
                losses.append(loss.data)
        loss = sum(float(loss) for loss in losses) / len(batches)  # asked for last: on a GPU the host waits here
        return loss, grad_norm(self.parameters) / self._factor(len(batches))

    def _factor(self, count: int) -> float:
        """What the sum of the gradients has to be divided by."""
        return count * self.scaler.scale if self.scaler else count
