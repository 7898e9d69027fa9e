"""A training step as one CUDA graph: forward and backward passes, clipping and update in a single launch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from minilm_kernels.device_numbers import clip_coefficient, together

from minilm import backend
from minilm.autograd import PRECISIONS, autocast
from minilm.optim import CapturedUpdate

from .arguments import mean_loss
from .step import Outcome, TrainingStep

__all__ = ["CapturedStep"]


class CapturedStep(TrainingStep):
    """A TrainingStep that is recorded at its fourth call and launched whole from then on.

    What differs from step to step goes in by arrays: the batches, the learning rates, the loss scale, the seeds of
    dropout; loss and norm come back together, and are all that the host waits for. The numbers are those of the step
    that is not recorded. That one is taken where the shapes differ from the first batches', and always where something
    needs the host in between: `refused` then says what. On the CPU it goes the same way, and nothing is recorded.
    """

    def __init__(self, model, optimizer, **settings) -> None:
        super().__init__(model, optimizer, **settings)
        self.refused: str | None = None
        self._seeds = backend.Seeds()
        self._update: CapturedUpdate | None = None
        self._graph: backend.Graph | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether steps are launched as a graph."""
        return self._graph is not None and self._graph.is_recorded

    def __call__(self, batches: Sequence[tuple]) -> Outcome:
        shapes = {(inputs.shape, targets.shape) for inputs, targets in batches}
        if self._update is not None and not self._update.is_current():  # a checkpoint was loaded, say
            self.forget()
        if self.refused is None and self._graph is None and len(shapes) == 1:
            return self._first(batches)
        if self.refused is not None or len(shapes) > 1:
            return super().__call__(batches)
        return self._launched(batches)

    def forget(self) -> None:
        self._update = self._graph = None

    def _first(self, batches: Sequence[tuple]) -> Outcome:
        """A plain step, which makes the optimiser's state, compiles kernels and shows which seeds are drawn."""
        try:
            with self._seeds.noting():
                done = super().__call__(batches)
        except RuntimeError as error:  # numbers drawn on the host; nothing was changed yet
            self.refused = str(error)
            self.optimizer.zero_grad()
            return super().__call__(batches)
        if done.updated:
            try:
                self._update = CapturedUpdate(self.optimizer)
                self._graph = backend.Graph(self._work, self.model.device)
            except ValueError as error:
                self.refused = str(error)
        return done

    def _launched(self, batches: Sequence[tuple]) -> Outcome:
        inputs, targets = (backend.array_module(*parts).stack(parts) for parts in zip(*batches))
        scale = self.scaler.scale if self.scaler else 1.0
        numbers = np.array([scale, *self._update.numbers()])
        if not self._graph.fits(inputs, targets, numbers):
            return super().__call__(batches)
        seeds = self._seeds.fresh()
        with backend.tf32(self.precision == "tf32"):
            found = self._graph(inputs, targets, numbers, seeds)
        loss, norm = map(float, backend.to_numpy(found))
        self.refused = self._graph.refused
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self._update.count()
        if self.scaler and math.isfinite(loss):
            self.scaler.update(finite)
        return Outcome(loss, norm, finite)

    def _work(self, inputs, targets, numbers, seeds):
        """The step on the device: (loss, norm), float64. numbers: the loss scale, then those of the update."""
        xp, count, scale = backend.array_module(numbers), len(inputs), numbers[0:1].reshape(())
        seed = scale.astype("float32")
        self._update.start()
        total = xp.zeros((), np.float64)
        expected = {"over": "ignore", "invalid": "ignore"} if self.scaler else {}
        with self._seeds.given(seeds), backend.unchecked_ranges(), np.errstate(**expected):
            for ids, following in zip(inputs, targets):
                with autocast(PRECISIONS[self.precision]):
                    loss = mean_loss(self.model, ids, following)
                loss.backward(seed)
                total = total + loss.data
        total, factor = total / count, count * scale
        norm = self._update.norm() / factor
        # A loss that is not finite leaves the weights alone as well.
        coefficient = clip_coefficient(norm + 0 * total, self.grad_clip) / factor
        self._update.apply(coefficient, numbers[1:])
        return together([total, norm], np.float64)
