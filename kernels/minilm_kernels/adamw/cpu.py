"""adamw for the CPU: one launch and one pass over memory for all arrays; every number is read and written once."""

from __future__ import annotations

import numpy as np

from ..array_table import ArrayTable, chunk_of
from ..chunks import SERIAL_BELOW
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from .scalars import step_scalars


@register("adamw", name="cpu", device="cpu", dtypes=("float32", "float64"))
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    table = ArrayTable.of(params, grads, exp_avgs, exp_avg_sqs)
    like = params[0].reshape(-1)[:0]
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step}
    scalars = np.array(step_scalars(**settings, decoupled=decoupled, grad_scale=grad_scale), like.dtype)
    parts = 1 if table.sizes.sum() < SERIAL_BELOW else len(table.owner)
    _update_all(parts, table.addresses, table.sizes, table.owner, table.first, like, scalars)


@jit(inline=True)
def _update(addresses, sizes, owner, first, like, scalars, start, stop):
    grad_scale, keep, l2, fresh1 = scalars[0], scalars[1], scalars[2], scalars[3]
    beta2, fresh2, step_size, root_scale, eps = scalars[4], scalars[5], scalars[6], scalars[7], scalars[8]
    for chunk in range(start, stop):
        p = chunk_of(addresses[0], sizes, owner, first, chunk, like)
        g = chunk_of(addresses[1], sizes, owner, first, chunk, like)
        m = chunk_of(addresses[2], sizes, owner, first, chunk, like)
        v = chunk_of(addresses[3], sizes, owner, first, chunk, like)
        for i in range(p.size):
            grad = g[i] * grad_scale + l2 * p[i]
            mean = m[i] + fresh1 * (grad - m[i])
            square = v[i] * beta2 + fresh2 * grad * grad
            m[i], v[i] = mean, square
            p[i] = p[i] * keep - step_size * mean / (np.sqrt(square) * root_scale + eps)


@jit
def _update_all(parts, addresses, sizes, owner, first, like, scalars):
    in_parts(_update, parts, owner.size, (addresses, sizes, owner, first, like, scalars))
