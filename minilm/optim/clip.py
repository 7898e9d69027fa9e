"""Keeping gradients from growing too large: by their norm, or value by value."""

from __future__ import annotations

import math

import minilm_kernels
import numpy as np

from minilm import ops

from . import settings
from .parameters import tensors

__all__ = ["clip_coefficient", "clip_grad_norm", "clip_grad_value", "grad_norm"]


def grad_norm(params) -> float:
    """The length of all gradients taken as one vector: sqrt(sum of squares), summed in float64.

    `params` is an iterable of tensors or of (name, tensor) pairs, or one tensor; those without a gradient do not count.
    NaN or infinity in a gradient makes it NaN or infinite.

    >>> w = minilm.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> grad_norm([w])
    5.0
    """
    alike: dict[tuple, list] = {}
    for parameter in _with_gradient(params):
        alike.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad.data)
    return math.hypot(*(minilm_kernels.global_norm(arrays) for arrays in alike.values()))


def clip_coefficient(norm: float, max_norm: float) -> float:
    """What gradients of this norm are to be multiplied by: min(1, max_norm / (norm + 1e-6)).

    For `optimizer.step(grad_scale=...)`, which clips without a pass over the gradients. A norm that is not finite gives
    NaN, which `step` refuses.

    >>> round(clip_coefficient(4.0, 1.0), 4), clip_coefficient(0.5, 1.0)
    (0.25, 1.0)
    """
    max_norm = settings.nonnegative("max_norm", max_norm)
    if not math.isfinite(norm):
        return math.nan
    return min(1.0, max_norm / (settings.nonnegative("norm", norm) + 1e-6))


def clip_grad_norm(params, max_norm: float, *, error_if_nonfinite: bool = False) -> float:
    """Scales all gradients in place so that their norm is at most `max_norm`; returns the norm that they had.

        g <- g min(1, max_norm / (|g| + 1e-6))     (Pascanu et al. 2012, arXiv:1211.5063)

    `params` as in `grad_norm`. As in torch.nn.utils.clip_grad_norm_, a norm that is not finite makes gradients NaN or
    zero, or with `error_if_nonfinite` raises RuntimeError and leaves them alone. ValueError for `max_norm` < 0.

    >>> w = minilm.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> clip_grad_norm([w], 1.0)
    5.0
    >>> round(grad_norm([w]), 4)
    1.0
    """
    max_norm = settings.nonnegative("max_norm", max_norm)
    params = tensors(params)
    norm = grad_norm(params)
    if not math.isfinite(norm) and error_if_nonfinite:
        raise RuntimeError(
            f"the norm of the gradients is {norm}; minilm.autograd.detect_anomaly() finds the operation it came from"
        )
    # Unlike clip_coefficient: max_norm / inf is 0, so that finite gradients vanish and infinite ones become NaN.
    coefficient = math.nan if math.isnan(norm) else min(1.0, max_norm / (norm + 1e-6))
    if coefficient != 1:
        with np.errstate(invalid="ignore"):
            for parameter in _with_gradient(params):
                parameter.grad.data *= coefficient
    return norm


def clip_grad_value(params, clip_value: float) -> None:
    """Limits every element of every gradient, in place, to [-clip_value, clip_value]; `params` as in `grad_norm`.

    >>> w = minilm.tensor([3.0, -0.1], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> clip_grad_value([w], 1.0)
    >>> w.grad
    tensor([ 1. , -0.1])
    """
    clip_value = settings.nonnegative("clip_value", clip_value)
    for parameter in _with_gradient(params):
        gradient = parameter.grad
        gradient.data = ops.clip(gradient.data, -clip_value, clip_value)


def _with_gradient(params) -> list:
    return [parameter for parameter in tensors(params) if parameter.grad is not None]
