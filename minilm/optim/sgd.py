"""Stochastic gradient descent, with momentum and Nesterov's look ahead."""

from __future__ import annotations

from . import settings
from .optimizer import Batch, Optimizer

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, in the form that PyTorch gave it).

        g <- g + weight_decay p
        b <- momentum b + (1 - dampening) g        (b <- g at the first step)
        p <- p - lr b                              (`nesterov`: p <- p - lr (g + momentum b))

    Without momentum there is no b, and no state. ValueError for settings out of range, and for Nesterov without
    momentum or with dampening.

    >>> w = minilm.tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w * w).sum().backward()
    ...     optimizer.step()
    >>> round(w.item(), 4)
    0.46
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **defaults})

    def array_names(self, group: dict) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def check(self, group: dict) -> None:
        super().check(group)
        group["momentum"] = settings.nonnegative("momentum", group["momentum"])
        group["dampening"] = settings.number("dampening", group["dampening"])
        group["weight_decay"] = settings.nonnegative("weight_decay", group["weight_decay"])
        if settings.flag("nesterov", group["nesterov"]) and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")

    def update(self, group: dict, batch: Batch, grad_scale: float) -> None:
        lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
        buffers = batch.arrays.get("momentum_buffer", [None] * len(batch.params))
        for p, g, buffer in zip(batch.params, batch.grads, buffers):
            if grad_scale != 1:
                g = g * grad_scale
            if weight_decay:
                g = g + weight_decay * p
            if momentum:
                if batch.step == 1:
                    buffer[...] = g
                else:
                    buffer *= momentum
                    buffer += (1 - group["dampening"]) * g
                g = g + momentum * buffer if group["nesterov"] else buffer
            p -= lr * g
