"""What of lamb's formula is the same for all elements of a step."""

from __future__ import annotations

__all__ = ["step_scalars"]


def step_scalars(*, lr, betas, eps, weight_decay, step, grad_scale) -> tuple[float, ...]:
    """Ten numbers in the order in which the kernels take them, in double precision, to be rounded once.

    >>> step_scalars(lr=0.5, betas=(0.5, 0.75), eps=0.25, weight_decay=0.125, step=1, grad_scale=1.0)
    (1.0, 0.5, 0.5, 0.75, 0.25, 2.0, 2.0, 0.25, 0.125, 0.5)
    """
    beta1, beta2 = betas
    return (
        grad_scale,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        1 / (1 - beta1**step),
        1 / (1 - beta2**step) ** 0.5,
        eps,
        weight_decay,
        lr,
    )
