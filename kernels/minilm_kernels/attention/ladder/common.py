"""What the steps of the ladder share: how one is registered, and how the compiled ones are spread over the threads.

A step is a function of five arguments, `step(q, k, v, causal, scale) -> (out, logsumexp)`. It is given

    q (N, G, T, D)    k and v (N, 1, S, D)    out (N, G, T, D)    logsumexp (N, G, T)

where N counts batches and key heads together and G the query heads that share one. None is empty, and every query sees
a key: what is left out here, `_adapted` has seen to.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, wraps

import numba
import numpy as np
from numba import types

from ...jit import jit
from ...launch import address_of, in_parts
from ...registry import register
from ...simd import call_address
from .. import attention as public
from ..reference import attention as reference

__all__ = ["launch", "step"]

_SIGNATURE = inspect.signature(reference)
_TAKEN = ("q", "k", "v", "causal", "scale")


def step(name: str, dtypes: tuple[str, ...] = ("float32",)) -> Callable:
    """Decorator: makes a step the implementation `name` of attention, run only when asked for by that name."""

    def decorate(function: Callable) -> Callable:
        adapted = _adapted(function)
        register("attention", name=name, device="cpu", dtypes=dtypes, limits=_limits, automatic=False)(adapted)
        return function

    return decorate


def _limits(*args, **settings) -> str | None:
    """The first setting that is in use, of those that the ladder leaves to the product kernel."""
    for setting, value in _SIGNATURE.bind(*args, **settings).arguments.items():
        if setting not in _TAKEN and not _is_off(value, inspect.signature(public).parameters[setting].default):
            return f"it is a step of the ladder, which takes {', '.join(_TAKEN)} and nothing more: no {setting}"
    return None


def _is_off(value, default) -> bool:
    return value is None or (np.ndim(value) == 0 and value == default)


def _adapted(function: Callable) -> Callable:
    """The step under the signature that all implementations have, for any layout, empty arrays and masked rows."""

    @wraps(function)
    def attention(*args, **settings):
        given = _SIGNATURE.bind(*args, **settings).arguments
        q, k, v = given["q"], given["k"], given["v"]
        (B, H, T, D), (_, Hk, S, _) = q.shape, k.shape
        out, logsumexp = np.zeros(q.shape, q.dtype), np.full((B, H, T), -math.inf, q.dtype)
        blind = max(0, T - S) if given["causal"] else 0  # the mask ends bottom right: these first queries see no key
        if q.size and S and blind < T:
            queries = np.ascontiguousarray(q[:, :, blind:]).reshape(B * Hk, H // Hk, T - blind, D)
            keys, values = (np.ascontiguousarray(x).reshape(B * Hk, 1, S, D) for x in (k, v))
            some, some_logsumexp = function(queries, keys, values, given["causal"], q.dtype.type(given["scale"]))
            out[:, :, blind:] = some.reshape(B, H, T - blind, D)
            logsumexp[:, :, blind:] = some_logsumexp.reshape(B, H, T - blind)
        return out, logsumexp

    attention.__signature__ = _SIGNATURE
    return attention


def launch(kernel: Callable, n_tasks: int, q, k, v, causal, scale):
    """Calls kernel(task, q, k, v, causal, scale, out, logsumexp) for all tasks, on all threads; returns out, logsumexp.

    They are dealt to the threads to and fro, 0 1 1 0 0 1 1 0 for two: where later ones see more keys, shares are alike.
    """
    out, logsumexp = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    _run_on_threads(numba.get_num_threads(), _address(kernel), n_tasks, q, k, v, bool(causal), scale, out, logsumexp)
    return out, logsumexp


_ROWS = types.Array(types.float32, 4, "C")
_ARGUMENTS = (types.int64, *[_ROWS] * 3, types.boolean, types.float32, _ROWS, types.Array(types.float32, 3, "C"))


@cache
def _address(kernel) -> int:
    """Compiles a kernel, once, and says where: linked into the loop over threads, it would be optimised again."""
    return address_of(kernel, _ARGUMENTS)


@jit(inline=True)
def _run(n_threads, address, n_tasks, q, k, v, causal, scale, out, logsumexp, thread, stop):
    for first in range(0, n_tasks, n_threads):
        forth = first // n_threads % 2 == 0
        task = first + (thread if forth else n_threads - 1 - thread)
        if task < n_tasks:
            call_address(address, task, q, k, v, causal, scale, out, logsumexp)


@jit
def _run_on_threads(n_threads, address, n_tasks, q, k, v, causal, scale, out, logsumexp):
    arguments = n_threads, address, n_tasks, q, k, v, causal, scale, out, logsumexp
    in_parts(_run, n_threads, n_threads, arguments)
