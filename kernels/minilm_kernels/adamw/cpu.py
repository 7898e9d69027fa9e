"""adamw for the CPU: one launch and one pass over memory for all arrays; every number is read and written once."""

from __future__ import annotations

import numpy as np

from ..array_table import ArrayTable, chunk_of
from ..chunks import SERIAL_BELOW
from ..jit import jit, prange
from ..registry import register


@register("adamw", name="cpu", device="cpu", dtypes=("float32", "float64"))
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    table = ArrayTable.of(params, grads, exp_avgs, exp_avg_sqs)
    like = params[0].reshape(-1)[:0]
    beta1, beta2 = betas
    # What doesn't change within a step is computed here, in double precision, and rounded once.
    scalars = (
        grad_scale,
        1 - lr * weight_decay if decoupled else 1.0,
        0.0 if decoupled else weight_decay,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**step),
        1 / (1 - beta2**step) ** 0.5,
        eps,
    )
    scalars = np.array(scalars, like.dtype)
    arguments = table.addresses, table.sizes, table.owner, table.first, like, scalars
    if table.sizes.sum() < SERIAL_BELOW:
        _update(*arguments, 0, len(table.owner))
    else:
        _update_all(*arguments)


@jit
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


@jit(parallel=True)
def _update_all(addresses, sizes, owner, first, like, scalars):
    for chunk in prange(owner.size):
        _update(addresses, sizes, owner, first, like, scalars, np.int64(chunk), np.int64(chunk) + 1)
