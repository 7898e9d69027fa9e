"""The specification of adamw, in plain array code: the order of operations is that of torch.optim.AdamW."""

from __future__ import annotations

from ..registry import array_module, register


@register("adamw", name="reference")
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    beta1, beta2 = betas
    step_size = lr / (1 - beta1**step)
    root_correction = (1 - beta2**step) ** 0.5
    for p, g, m, v in zip(params, grads, exp_avgs, exp_avg_sqs):
        g = g * grad_scale
        if decoupled:
            p *= 1 - lr * weight_decay
        else:
            g = g + weight_decay * p
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        p -= step_size * m / (array_module(p).sqrt(v) / root_correction + eps)
