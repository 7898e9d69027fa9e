"""Softmax attention and its gradient; `reference.py` says in plain array code what is computed."""

from __future__ import annotations

import math

from .. import checks, registry

__all__ = ["attention", "attention_backward"]


def attention(q, k, v, *, causal=False, scale=None, key_lengths=None, implementation="auto"):
    """Weighs the values by how well their keys match each query.

        out = softmax(scale * q k^T) v        logsumexp = log(sum over keys of exp(scale * q k^T))

    q is (B, H, T, D), k and v are (B, Hk, S, D); H is a multiple of Hk, and the queries of heads h * H/Hk to
    (h + 1) * H/Hk - 1 share key head h (grouped query attention). All have one float dtype and may be strided.
    `scale` is 1 / sqrt(D) if None. With `causal`, query t sees keys 0 to S - T + t: the mask is aligned bottom right,
    as decoding with a key cache needs it. `key_lengths`, (B,) integers, masks the keys from that one on. A query that
    sees no key gets zeros, and logsumexp -inf.

    Returns out (B, H, T, D) and logsumexp (B, H, T), which the backward pass needs, in the dtype of q. The CPU kernel
    never holds a T x S matrix (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).
    Raises ValueError for shapes that don't fit, and TypeError for dtypes that differ.

    >>> import numpy as np
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 4, 8), dtype=np.float32)
    >>> out, logsumexp = attention(q, k, v, causal=True)
    >>> out.shape, logsumexp.shape, bool(np.allclose(out[:, :, 0], v[:, :, 0]))  # the first query sees the first key
    ((1, 2, 4, 8), (1, 2, 4), True)
    """
    scale, key_lengths = _checked(q, k, v, scale, key_lengths)
    return registry.call(
        "attention", implementation, q, k, v, causal=bool(causal), scale=scale, key_lengths=key_lengths
    )


def attention_backward(
    g, q, k, v, out, logsumexp, *, causal=False, scale=None, key_lengths=None, into=None, implementation="auto"
):
    """The gradients of `attention` with respect to q, k and v, for the gradient g of its output.

        P = exp(scale * q k^T - logsumexp)    dS = P * (g v^T - rowsum(g * out))
        dq = scale * dS k                     dk = scale * dS^T q                  dv = P^T g

    g and out are shaped like q; `logsumexp` and `out` are what `attention` returned for the same q, k, v and settings.
    The weights P are computed again, tile by tile, instead of being kept. Returns (dq, dk, dv), shaped like q, k and v:
    new arrays, or the three given in `into`, which may be parts of one. Raises as `attention` does.

    >>> import numpy as np
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 4, 8), dtype=np.float32)
    >>> out, logsumexp = attention(q, k, v)
    >>> dq, dk, dv = attention_backward(np.ones_like(out), q, k, v, out, logsumexp)
    >>> bool(np.allclose(dv.sum(axis=2), 4, atol=1e-5))  # each of the four queries hands out weights that sum to one
    True
    """
    scale, key_lengths = _checked(q, k, v, scale, key_lengths)
    checks.matches("g", g, q.shape, q.dtype)
    checks.matches("out", out, q.shape, q.dtype)
    checks.matches("logsumexp", logsumexp, q.shape[:3], q.dtype)
    for name, array, like in zip(("dq", "dk", "dv"), into or (), (q, k, v)):
        checks.matches(f"{name} in into", array, like.shape, q.dtype)
    return registry.call(
        "attention_backward",
        implementation,
        *(g, q, k, v, out, logsumexp),
        causal=bool(causal),
        scale=scale,
        key_lengths=key_lengths,
        into=into,
    )


def _checked(q, k, v, scale, key_lengths):
    """Raises if the arguments don't fit together; returns the scale as a float and the lengths as an array."""
    checks.is_floating("q", q)
    if q.ndim != 4 or q.shape[3] == 0:
        raise ValueError(
            f"q has shape {q.shape}; expected (batch, heads, length, head size) with a head size of 1 or more"
        )
    checks.matches("v", v, k.shape, q.dtype)
    checks.matches("k", k, v.shape, q.dtype)
    if k.ndim != 4:
        raise ValueError(f"k and v have shape {k.shape}; expected (batch, key heads, length, head size)")
    B, H, _, D = q.shape
    Bk, Hk, S, Dk = k.shape
    if Bk != B or Dk != D:
        raise ValueError(
            f"q has shape {q.shape} and k {k.shape}; expected the same batch and head size, first and last"
        )
    if Hk == 0 or H % Hk:
        raise ValueError(f"q has {H} heads and k has {Hk}; expected the query heads to be a multiple of the key heads")
    if key_lengths is not None:
        key_lengths = _checked_lengths(registry.array_module(q), key_lengths, B, S)
    return (1 / math.sqrt(D) if scale is None else float(scale)), key_lengths


def _checked_lengths(xp, key_lengths, B, S):
    lengths = xp.asarray(key_lengths)
    checks.is_integer("key_lengths", lengths, (B,))
    # On a GPU looking at the values would stall it; there, too, a length beyond S means every key.
    if registry.device_of(lengths) == "cpu" and B and (lengths.min() < 0 or lengths.max() > S):
        raise ValueError(f"key_lengths is {lengths.tolist()}; expected lengths from 0 to S = {S}")
    return lengths
