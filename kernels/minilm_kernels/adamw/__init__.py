"""One step of Adam and AdamW over all parameters."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["adamw"]


def adamw(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    *,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.01,
    step,
    decoupled=True,
    grad_scale=1.0,
    implementation="auto",
):
    """One step of AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), in place, over lists of arrays.

    With g the gradient times `grad_scale`, m and v its running means, t = `step` counted from 1:

        p <- p - lr weight_decay p                 (`decoupled`; otherwise g <- g + weight_decay p, as in Adam)
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        p <- p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

    The four lists are of one length; arrays at the same place have one shape, all arrays one floating dtype, and all
    are C-contiguous. Returns None; `grads` are not changed. ValueError or TypeError names the list and the place.

    >>> p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adamw([p], [np.array([0.5])], [m], [v], lr=0.1, weight_decay=0.0, step=1)
    >>> p.round(6), m, v
    (array([0.9]), array([0.05]), array([0.00025]))
    """
    checks.is_step(step, betas)
    lists = {"params": params, "grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    checks.are_alike(lists, read_only=("grads",))
    if len(params) == 0:
        return
    registry.call(
        "adamw",
        implementation,
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        step=step,
        decoupled=decoupled,
        grad_scale=grad_scale,
    )
