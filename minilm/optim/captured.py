"""An optimiser's step for a recorded graph: its numbers come from a device array, and its counting is done outside."""

from __future__ import annotations

from minilm_kernels import device_numbers
from minilm_kernels.cuda.launching import DTYPES

from minilm import backend
from minilm.autograd import Tensor

from . import state
from .moments import MomentsOptimizer
from .optimizer import Optimizer

__all__ = ["CapturedUpdate"]


class CapturedUpdate:
    """The steps of an Adam, AdamW or LAMB that has taken one, over the parameters that took part in it.

    `numbers()` is what differs from step to step, float64: the count of the coming step and each group's learning rate.
    Given it as a device array, `start` and `apply` are a step around the backward passes, without a look at the host;
    `count` then says that it was taken. The gradients lie in flat arrays, one for each dtype. ValueError, with the
    reason, for an optimiser that can't.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, MomentsOptimizer):
            raise ValueError(f"{type(optimizer).__name__}'s step is not one that reads its numbers from the device")
        steps = {entry["step"] for entry in optimizer.state.values()}
        if len(steps) != 1:
            raise ValueError(f"its parameters have taken different numbers of steps, {sorted(steps)}")
        self.optimizer = optimizer
        self._members = [[p for p in group["params"] if p in optimizer.state] for group in optimizer.param_groups]
        parameters = [p for members in self._members for p in members]
        dtypes = {p.dtype for p in parameters}
        if len(dtypes) != 1 or any(not p.requires_grad for p in parameters):
            raise ValueError("its parameters are of different dtypes, or some were frozen since")
        if any(not p.data.flags.c_contiguous for p in parameters):
            raise ValueError("a parameter is not contiguous")
        dtype, device = dtypes.pop(), parameters[0].device
        if device == "cuda" and dtype.name not in DTYPES:
            raise ValueError(f"its parameters are {dtype}, and kernels for CUDA take {', '.join(DTYPES)}")
        starts = state.starts(parameters, dtype)
        self.gradients = backend.array_module(parameters[0].data).zeros(starts[-1], dtype)
        self._parts = {p: self.gradients[i : i + p.size].reshape(p.shape) for p, i in zip(parameters, starts)}

        self._made_for = self._state()
        self._alive = optimizer.state, [p.data for p in parameters]  # so that no other object has their ids

    def is_current(self) -> bool:
        """Whether weights, state and settings are still those that a recorded step would use."""
        return self._state() == self._made_for

    def _state(self) -> list:
        fixed = [self.optimizer.fixed(group) for group in self.optimizer.param_groups]
        return [id(self.optimizer.state), *(id(p.data) for p in self._parts), *fixed]

    def numbers(self) -> list[float]:
        """The number that the coming step has, and the learning rates."""
        step = next(iter(self.optimizer.state.values()))["step"] + 1
        return [step, *(group["lr"] for group in self.optimizer.param_groups)]

    def start(self) -> None:
        """Puts zeros into the gradients, to which backward passes add."""
        self.gradients[...] = 0
        for p, part in self._parts.items():
            p.grad = Tensor(part)

    def norm(self):
        """The length of the gradient, on the device."""
        return device_numbers.norm([self.gradients])

    def apply(self, grad_scale, numbers) -> None:
        """The update, with gradients times `grad_scale`; none where that is NaN. Takes the gradients off."""
        for group, members, place in zip(self.optimizer.param_groups, self._members, range(1, len(numbers))):
            if not members:
                continue
            entries = [self.optimizer.state[p] for p in members]
            self.optimizer.recordable_kernel(
                [p.data for p in members],
                [self._parts[p] for p in members],
                [entry["exp_avg"] for entry in entries],
                [entry["exp_avg_sq"] for entry in entries],
                lr=numbers[place],
                step=numbers[0],
                grad_scale=grad_scale,
                **self.optimizer.fixed(group),
            )
        for p in self._parts:
            p.grad = None

    def count(self) -> None:
        """Notes on the host that a step was taken."""
        for p in self._parts:
            self.optimizer.state[p]["step"] += 1
            p.bump_version()
