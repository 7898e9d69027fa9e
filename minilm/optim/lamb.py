"""LAMB: Adam's direction, with a step in proportion to the length of each parameter."""

from __future__ import annotations

import minilm_kernels
from minilm_kernels import device_numbers

from . import settings
from .moments import MomentsOptimizer

__all__ = ["LAMB"]


class LAMB(MomentsOptimizer):
    """Layer-wise adaptive moments for large batches (You et al. 2019, arXiv:1904.00962, algorithm 2).

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        u  = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p
        p <- p - lr r u,   r = phi(|p|) / |u|      (1 where |p| or |u| is 0)

    The norms are those of one parameter tensor. What the paper leaves open: phi is the identity, cut off at
    `max_weight_norm` if that is given (the first implementation used 10). Groups without weight decay, that is biases
    and norms, take r = 1, as the paper's experiments did; `always_adapt` gives every parameter its ratio. There is no
    clipping inside: use `clip_grad_norm` or `grad_scale`.

    State: `exp_avg` (m) and `exp_avg_sq` (v), in the parameter's dtype. ValueError for settings out of range.

    >>> w = minilm.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = LAMB([w], lr=0.1, weight_decay=0.0, always_adapt=True)
    >>> w.sum().backward()
    >>> optimizer.step()                     # u = (1, 1), r = 5 / sqrt(2)
    >>> w.numpy().round(4)
    array([2.6464, 3.6464], dtype=float32)
    """

    kernel, recordable_kernel = staticmethod(minilm_kernels.lamb), staticmethod(device_numbers.lamb)

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        max_weight_norm: float | None = None,
        always_adapt: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "max_weight_norm": max_weight_norm, "always_adapt": always_adapt})

    def check(self, group: dict) -> None:
        super().check(group)
        if group["max_weight_norm"] is not None:
            group["max_weight_norm"] = settings.positive("max_weight_norm", group["max_weight_norm"])
        settings.flag("always_adapt", group["always_adapt"])

    def fixed(self, group: dict) -> dict:
        adapt = group["weight_decay"] > 0 or group["always_adapt"]
        return {**super().fixed(group), "adapt": adapt, "max_weight_norm": group["max_weight_norm"]}
