"""lamb for the CPU: one launch for all arrays, in two passes, as an array's norms must be known before it moves.

The update u is not kept in between: it is computed again from the means, which costs no more than to read it.
"""

from __future__ import annotations

import numpy as np

from ..array_table import ArrayTable, chunk_of
from ..chunks import SERIAL_BELOW
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from .scalars import step_scalars


@register("lamb", name="cpu", device="cpu", dtypes=("float32", "float64"))
def lamb(
    params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, adapt, max_weight_norm, grad_scale
):
    table = ArrayTable.of(params, grads, exp_avgs, exp_avg_sqs)
    like = params[0].reshape(-1)[:0]
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step}
    scalars = np.array(step_scalars(**settings, grad_scale=grad_scale), like.dtype)
    largest = np.inf if max_weight_norm is None else float(max_weight_norm)
    parts = len(table.owner) if table.sizes.sum() >= SERIAL_BELOW else 1
    arrays = table.addresses, table.sizes, table.owner, table.first, like, scalars
    _step(parts, *arrays, adapt, largest)


@jit(inline=True)
def _average(addresses, sizes, owner, first, like, scalars, adapt, squares, start, stop):
    """The running means; with `adapt` each chunk's sums of squares, of the parameters and of their updates."""
    grad_scale, beta1, fresh1, beta2, fresh2 = scalars[0], scalars[1], scalars[2], scalars[3], scalars[4]
    scale, root_scale, eps, decay = scalars[5], scalars[6], scalars[7], scalars[8]
    for chunk in range(start, stop):
        p = chunk_of(addresses[0], sizes, owner, first, chunk, like)
        g = chunk_of(addresses[1], sizes, owner, first, chunk, like)
        m = chunk_of(addresses[2], sizes, owner, first, chunk, like)
        v = chunk_of(addresses[3], sizes, owner, first, chunk, like)
        for i in range(p.size):
            grad = g[i] * grad_scale
            m[i] = m[i] * beta1 + fresh1 * grad
            v[i] = v[i] * beta2 + fresh2 * grad * grad
        if adapt:
            weight, update = 0.0, 0.0
            for i in range(p.size):
                u = m[i] * scale / (np.sqrt(v[i]) * root_scale + eps) + decay * p[i]
                weight += np.float64(p[i]) * np.float64(p[i])
                update += np.float64(u) * np.float64(u)
            squares[chunk, 0], squares[chunk, 1] = weight, update


@jit(inline=True)
def _move(addresses, sizes, owner, first, like, scalars, ratios, start, stop):
    scale, root_scale, eps, decay = scalars[5], scalars[6], scalars[7], scalars[8]
    for chunk in range(start, stop):
        p = chunk_of(addresses[0], sizes, owner, first, chunk, like)
        m = chunk_of(addresses[2], sizes, owner, first, chunk, like)
        v = chunk_of(addresses[3], sizes, owner, first, chunk, like)
        rate = scalars[9] * ratios[owner[chunk]]
        for i in range(p.size):
            p[i] -= rate * (m[i] * scale / (np.sqrt(v[i]) * root_scale + eps) + decay * p[i])


@jit
def _step(parts, addresses, sizes, owner, first, like, scalars, adapt, largest):
    squares = np.zeros((owner.size, 2))
    in_parts(_average, parts, owner.size, (addresses, sizes, owner, first, like, scalars, adapt, squares))
    norms = np.zeros((sizes.size, 2))
    for chunk in range(owner.size):  # in order: the same bits on any number of threads
        norms[owner[chunk]] += squares[chunk]
    ratios = np.ones(sizes.size, scalars.dtype)
    for i in range(sizes.size):
        weight, update = np.sqrt(norms[i, 0]), np.sqrt(norms[i, 1])
        if weight > 0 and update > 0:
            ratios[i] = min(weight, largest) / update
    in_parts(_move, parts, owner.size, (addresses, sizes, owner, first, like, scalars, ratios))
