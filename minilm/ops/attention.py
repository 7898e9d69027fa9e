"""Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)."""

from __future__ import annotations

import math

import minilm_kernels as kernels
from minilm_kernels import portable

from minilm import backend
from minilm.autograd import Array, Tensor, is_grad_enabled, op
from minilm.backend import Generator, array_module

from .attention_weights import composed_attention
from .elementwise import astype
from .shape import broadcast_to, reshape, split

__all__ = ["join_heads", "packed_self_attention", "scaled_dot_product_attention", "split_heads"]


@op(view=True)
def split_heads(x: Array, n_head):
    """(B, T, H D) to (B, H, T, D), the H = `n_head` heads side by side in the last axis; no copy.

    >>> import numpy as np
    >>> split_heads(np.ones((1, 5, 12)), 3).shape
    (1, 3, 5, 4)
    """
    if x.ndim != 3 or n_head < 1 or x.shape[2] % n_head:
        raise ValueError(f"split_heads takes (B, T, H D) with H = {n_head} heads; got shape {tuple(x.shape)}")
    return x.reshape(*x.shape[:2], n_head, x.shape[2] // n_head).swapaxes(1, 2)


@split_heads.gradient
def _(g):
    return join_heads(g)


@op(view=True)
def join_heads(x: Array):
    """(B, H, T, D) to (B, T, H D), the reverse of `split_heads`; no copy of what the attention kernel returns.

    >>> import numpy as np
    >>> join_heads(np.ones((1, 3, 5, 4))).shape
    (1, 5, 12)
    """
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


@join_heads.gradient
def _(g, x_shape):
    return split_heads(g, x_shape[1])


@op(keeps=("logsumexp",), precision="low")
def attention(q: Array, k: Array, v: Array, bias: Array, settings):
    return kernels.attention(q, k, v, bias=bias, **settings)


@attention.gradient
def _(g, q, k, v, bias, y, logsumexp, settings, needs):
    found = kernels.attention_backward(g, q, k, v, y, logsumexp, bias=bias, bias_gradient=needs[3], **settings)
    return found if needs[3] else (*found, None)


@attention.composition
def _(q, k, v, bias, settings):
    return composed_attention(q, k, v, bias, settings)


@op(keeps=("logsumexp",), precision="low")
def _packed_attention(qkv: Array, bias: Array, n_head, settings):
    out, logsumexp = kernels.attention(*_parts(qkv, n_head), bias=bias, **settings)
    return join_heads(out), logsumexp


@_packed_attention.gradient
def _(g, qkv, bias, y, logsumexp, n_head, settings, needs):
    into = array_module(qkv).empty(qkv.shape, qkv.dtype)  # one array, not three to be put together
    g, heads, parts = split_heads(g, n_head), split_heads(y, n_head), _parts(qkv, n_head)
    _, _, _, *d_bias = kernels.attention_backward(
        g, *parts, heads, logsumexp, bias=bias, bias_gradient=needs[1], into=_parts(into, n_head), **settings
    )
    return into, *(d_bias or [None])


@_packed_attention.composition
def _(qkv, bias, n_head, settings):
    q, k, v = (split_heads(part, n_head) for part in split(qkv, 3, axis=2))
    return join_heads(composed_attention(q, k, v, bias, settings))


def _parts(qkv, n_head):
    """Views of (B, T, 3 H D) as q, k and v, each (B, H, T, D)."""
    B, T, width = qkv.shape
    parts = qkv.reshape(B, T, 3, n_head, width // (3 * n_head))
    return tuple(parts[:, :, i].swapaxes(1, 2) for i in range(3))


_KNOWN = (
    "scale", "key_lengths", "window", "soft_cap", "alibi_slopes", "cu_seqlens", "cu_seqlens_k", "score_mod",
    "block_mask", "implementation",
)  # fmt: skip
_INSTEAD = {
    "is_causal": "it is called causal",
    "mask_mod": "give block_mask=block_mask(mask_mod, B, H, T, S), of minilm_kernels.attention.mods",
    "mask": "it is called attn_mask",
}


def scaled_dot_product_attention(
    q,
    k,
    v,
    causal: bool = False,
    *,
    attn_mask=None,
    dropout_p: float = 0.0,
    generator: Generator | None = None,
    **settings,
):
    """softmax(scale q k^T) v: for each query a mean of the values, weighed by how well their keys match it.

    q (..., H, T, D), k and v (..., Hk, S, D) where Hk divides H (each key head then serves H / Hk query heads).
    `causal` lets query t see keys up to t + S - T; `attn_mask`, broadcastable to (..., H, T, S), is True where a key
    may be seen, or a number added to the scores, with a gradient if it requires one. Each weight is dropped with
    probability `dropout_p`, by numbers from `generator`. A query that sees no key gets zeros.

    `settings` are further ones of `minilm_kernels.attention`: `scale` (1 / sqrt(D) by default), `key_lengths` (B,),
    `window`, `soft_cap`, `alibi_slopes`, `cu_seqlens`, `score_mod`, `block_mask`. They get no gradient: one
    that requires it is a ValueError. The (T, S) matrix is never made.

    >>> import numpy as np
    >>> x = np.ones((1, 2, 3, 4), np.float32)
    >>> scaled_dot_product_attention(x, x, x, causal=True, window=2).shape
    (1, 2, 3, 4)
    """
    if not q.ndim == k.ndim == v.ndim or q.ndim < 2:
        raise ValueError(
            f"attention needs q, k and v with equally many axes, at least 2; got {q.ndim}, {k.ndim} and {v.ndim}"
        )
    if not q.shape[:-3] == k.shape[:-3] == v.shape[:-3]:
        raise ValueError(f"attention needs q, k and v with the same batch axes; got {q.shape}, {k.shape} and {v.shape}")
    if dropout_p == 1:
        return scaled_dot_product_attention(q, k, v, causal, attn_mask=attn_mask, **settings) * 0
    settings = _settings(settings, causal, dropout_p, generator)
    if q.ndim == 4:
        return attention(q, k, v, _bias(attn_mask, q), settings)
    lead = tuple(q.shape[:-3])
    bias = _bias(attn_mask, q)
    if bias is not None and bias.ndim > 3:
        bias = broadcast_to(bias, (*lead, *bias.shape[-3:]))
        bias = reshape(bias, (math.prod(lead), *bias.shape[-3:]))
    four = [x.reshape((math.prod(lead), *((1,) if x.ndim == 2 else ()), *x.shape[len(lead) :])) for x in (q, k, v)]
    return attention(*four, bias, settings).reshape((*q.shape[:-1], v.shape[-1]))


def packed_self_attention(
    qkv, n_head: int, causal: bool = False, *, attn_mask=None, dropout_p: float = 0.0, generator=None, **settings
):
    """Self-attention from one array to one: the projection that makes q, k and v goes in, the heads come out joined.

    qkv (B, T, 3 H D) holds q, k and v side by side, each with its H = `n_head` heads side by side; the result is
    (B, T, H D). The same as `scaled_dot_product_attention` of the parts, with its settings, in fewer steps.

    >>> import numpy as np
    >>> packed_self_attention(np.ones((1, 3, 24), np.float32), 2, causal=True).shape
    (1, 3, 8)
    """
    if qkv.ndim != 3 or qkv.shape[2] % (3 * n_head):
        raise ValueError(f"qkv is (B, T, 3 H D) with H = {n_head} heads; got shape {tuple(qkv.shape)}")
    if dropout_p == 1:
        return packed_self_attention(qkv, n_head, causal, attn_mask=attn_mask, **settings) * 0
    settings = _settings(settings, causal, dropout_p, generator)
    return _packed_attention(qkv, _bias(attn_mask, qkv), n_head, settings)


def _settings(settings: dict, causal: bool, dropout_p: float, generator: Generator | None) -> dict:
    """The settings as the kernel takes them: raw arrays, and a seed if weights are dropped."""
    for name, value in settings.items():
        if name not in _KNOWN:
            instead = _INSTEAD.get(name, f"there are: causal, attn_mask, dropout_p, generator, {', '.join(_KNOWN)}")
            raise TypeError(f"attention has no argument {name!r}; {instead}")
        if isinstance(value, Tensor) and value.requires_grad and is_grad_enabled():
            raise ValueError(
                f"attention gives no gradient to {name!r}, which requires one: multiply q by a scale that is learnt, "
                f"give a bias that is as attn_mask, or pass {name}.detach() if no gradient is meant"
            )
    settings = {name: x._data if isinstance(x, Tensor) else x for name, x in settings.items()} | {"causal": causal}
    if dropout_p:
        settings |= {"dropout_p": dropout_p, "seed": (generator or backend.default_generator).seed64()}
    return settings


def _bias(attn_mask, q):
    """What a mask adds to the scores, in the dtype of q."""
    mask = getattr(attn_mask, "_data", attn_mask)
    if mask is None:
        return None
    if not hasattr(mask, "dtype"):
        attn_mask = mask = backend.as_array(mask, device=backend.device_of(getattr(q, "_data", q)))
    if mask.dtype.kind in "iu":
        raise TypeError(
            f"attn_mask is {mask.dtype}: is it True where a key may be seen, or added to the scores? Use "
            f"attn_mask.astype(bool), or attn_mask.astype('{q.dtype}')"
        )
    if mask.dtype.kind == "b":
        xp = array_module(mask)
        return portable.where(mask, xp.zeros((), q.dtype), xp.full((), -math.inf, q.dtype))
    return attn_mask if attn_mask.dtype == q.dtype else astype(attn_mask, q.dtype)
