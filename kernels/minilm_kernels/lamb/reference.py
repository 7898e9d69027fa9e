"""The specification of lamb, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register


@register("lamb", name="reference")
def lamb(
    params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, adapt, max_weight_norm, grad_scale
):
    beta1, beta2 = betas
    scale = 1 / (1 - beta1**step)
    root_scale = 1 / (1 - beta2**step) ** 0.5
    for p, g, m, v in zip(params, grads, exp_avgs, exp_avg_sqs):
        g = g * grad_scale
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        u = m * scale / (array_module(p).sqrt(v) * root_scale + eps)
        if weight_decay:
            u = u + weight_decay * p
        if adapt:
            u = u * _trust_ratio(p, u, max_weight_norm)
        p -= lr * u


def _trust_ratio(p, u, max_weight_norm: float | None):
    """min(|p|, max_weight_norm) / |u| without axes, of p's dtype: on a GPU it never has to come to the host."""
    xp = array_module(p)
    weight, update = (xp.sqrt(xp.square(array).sum(dtype=xp.float64)) for array in (p, u))
    cut = weight if max_weight_norm is None else xp.minimum(weight, max_weight_norm)
    ratio = xp.where((weight > 0) & (update > 0), cut / xp.where(update > 0, update, 1.0), 1.0)
    return ratio.astype(p.dtype)
