"""Adam and AdamW, by one kernel launch for all parameters of a group."""

from __future__ import annotations

import minilm_kernels
from minilm_kernels import device_numbers

from .moments import MomentsOptimizer

__all__ = ["Adam", "AdamW"]


class AdamW(MomentsOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv:1711.05101), as torch.optim.AdamW.

        p <- p - lr weight_decay p
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        p <- p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

    State: `exp_avg` (m) and `exp_avg_sq` (v), in the parameter's dtype, each one flat array for a whole group. The
    AMSGrad variant is not offered. ValueError for settings out of range.

    >>> w = minilm.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = AdamW([("w", w)], lr=0.1, weight_decay=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy().round(3)
    array([ 0.899, -1.898], dtype=float32)
    """

    kernel, recordable_kernel = staticmethod(minilm_kernels.adamw), staticmethod(device_numbers.adamw)
    decoupled = True

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def fixed(self, group: dict) -> dict:
        return {**super().fixed(group), "decoupled": self.decoupled}


class Adam(AdamW):
    """Adam (Kingma & Ba 2014, arXiv:1412.6980), as torch.optim.Adam: weight decay, if any, is added to the gradient.

        g <- g + weight_decay p
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        p <- p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

    Divided by sqrt(v), such a decay is weakest where gradients are large; AdamW keeps it apart.

    >>> w = minilm.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy().round(3)
    array([ 0.9, -1.9], dtype=float32)
    """

    decoupled = False

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
