"""What optimisers that keep running means of the gradient and of its square have in common."""

from __future__ import annotations

from collections.abc import Callable

from . import settings
from .optimizer import Batch, Optimizer

__all__ = ["MomentsOptimizer"]


class MomentsOptimizer(Optimizer):
    """An optimiser with the state `exp_avg` and `exp_avg_sq`, whose step is one kernel.

    `kernel` takes four lists of arrays, `lr`, `step`, `grad_scale` and what `fixed` says of a group;
    `recordable_kernel` is the same with these three numbers as arrays of the device (minilm_kernels.device_numbers).
    """

    kernel: Callable
    recordable_kernel: Callable

    def array_names(self, group: dict) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def check(self, group: dict) -> None:
        super().check(group)
        group["betas"] = settings.betas(group["betas"])
        group["eps"] = settings.nonnegative("eps", group["eps"])
        group["weight_decay"] = settings.nonnegative("weight_decay", group["weight_decay"])

    def fixed(self, group: dict) -> dict:
        """The kernel's settings that do not change from step to step."""
        return {name: group[name] for name in ("betas", "eps", "weight_decay")}

    def update(self, group: dict, batch: Batch, grad_scale: float) -> None:
        self.kernel(
            batch.params,
            batch.grads,
            batch.arrays["exp_avg"],
            batch.arrays["exp_avg_sq"],
            lr=group["lr"],
            step=batch.step,
            grad_scale=grad_scale,
            **self.fixed(group),
        )
