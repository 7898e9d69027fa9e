"""One step of LAMB over all parameters."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["lamb"]


def lamb(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    *,
    lr,
    betas=(0.9, 0.999),
    eps=1e-6,
    weight_decay=0.01,
    step,
    adapt=True,
    max_weight_norm=None,
    grad_scale=1.0,
    implementation="auto",
):
    """One step of LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2), in place, over lists of arrays.

    With g the gradient times `grad_scale`, m and v its running means, t = `step` counted from 1:

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        u  = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p
        p <- p - lr r u,   r = min(|p|, max_weight_norm) / |u|

    The norms are those of one array, summed in float64. r is 1 where one of them is 0, and for all arrays without
    `adapt`; `max_weight_norm` None cuts nothing off.

    The four lists are of one length; arrays at the same place have one shape, all arrays one floating dtype, and all
    are C-contiguous. Returns None; `grads` are not changed. ValueError or TypeError names the list and the place.

    >>> p, m, v = np.array([3.0, 4.0]), np.zeros(2), np.zeros(2)
    >>> lamb([p], [np.ones(2)], [m], [v], lr=0.1, weight_decay=0.0, step=1)  # u = (1, 1), r = 5 / sqrt(2)
    >>> p.round(4)
    array([2.6464, 3.6464])
    """
    checks.is_step(step, betas)
    if max_weight_norm is not None and not max_weight_norm > 0:
        raise ValueError(f"max_weight_norm is {max_weight_norm}; expected a number above 0, or None")
    lists = {"params": params, "grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    checks.are_alike(lists, read_only=("grads",))
    if len(params) == 0:
        return
    settings = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step, "adapt": bool(adapt)}
    settings |= {"lr": lr, "max_weight_norm": max_weight_norm, "grad_scale": grad_scale}
    registry.call("lamb", implementation, params, grads, exp_avgs, exp_avg_sqs, **settings)
