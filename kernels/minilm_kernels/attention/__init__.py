"""Softmax attention and its gradient; `reference.py` says in plain array code what is computed."""

from __future__ import annotations

from .. import registry
from .arguments import check_backward, checked

__all__ = ["attention", "attention_backward"]


def attention(
    q, k, v, *, causal=False, window=None, scale=None, soft_cap=None, bias=None, alibi_slopes=None, key_lengths=None,
    cu_seqlens=None, cu_seqlens_k=None, dropout_p=0.0, seed=0, score_mod=None, block_mask=None, implementation="auto"
):  # fmt: skip
    """Weighs the values by how well their keys match each query.

        score = scale * q k^T, then changed and masked as said below
        out = dropout(softmax(score)) v        logsumexp = log(sum over keys of exp(score))

    q is (B, H, T, D), k and v are (B, Hk, S, D); H is a multiple of Hk, and the queries of heads h * H/Hk to
    (h + 1) * H/Hk - 1 share key head h (grouped query attention). All have one float dtype and may be strided.
    `scale` is 1 / sqrt(D) if None. What changes the scores, in this order:

    - `soft_cap` c: c tanh(score / c) (Gemma 2, arXiv:2408.00118);
    - `bias`, broadcastable to (B, H, T, S), of q's dtype, is added; -inf hides a key;
    - `alibi_slopes` (H,) or (B, H): slope * |position - s| is subtracted (Press et al. 2021, arXiv:2108.12409);
    - `score_mod(score, b, h, t, s)`, a plain Python function of numbers (FlexAttention, arXiv:2412.05496), or a
      `ScoreMod` of `minilm_kernels.attention.mods`, which also holds its derivative.

    What hides keys; position = S - T + t, so that the last query stands at the last key, as decoding with a key cache
    needs it:

    - `causal`: keys after the query's position;
    - `window` (left, right): keys further than that to the left or right of it, None for no end; n for (n - 1, n - 1),
      with `causal` the last n keys;
    - `key_lengths` (B,) integers: keys from that one on;
    - `cu_seqlens` (n + 1,) integers: B is 1, and n sequences lie packed one after another along T, the i-th from
      cu_seqlens[i] to cu_seqlens[i + 1]; each attends to itself alone, or to its part of S by `cu_seqlens_k`.
      Positions count within a sequence;
    - `block_mask`: a `BlockMask` of `minilm_kernels.attention.mods`, whose empty blocks cost nothing.

    A query that sees no key gets zeros, and logsumexp -inf. `dropout_p` zeroes weights and divides the others by
    1 - p: weight (b, h, t, s) as `dropout` with `seed` does element ((b H + h) T + t) S' + s, S' being S rounded up to
    a multiple of four; the backward pass computes the same numbers again. As there, `seed` may lie on the GPU.

    Returns out (B, H, T, D) and logsumexp (B, H, T), which the backward pass needs, in the dtype of q, where
    that has 16 bits logsumexp in float32, for the backward pass takes its exponentials. Kernels hold no T x S
    matrix (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).
    Raises ValueError for shapes and settings that don't fit, and TypeError for dtypes that differ.

    >>> import numpy as np
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 4, 8), dtype=np.float32)
    >>> out, logsumexp = attention(q, k, v, causal=True)
    >>> out.shape, logsumexp.shape, bool(np.allclose(out[:, :, 0], v[:, :, 0]))  # the first query sees the first key
    ((1, 2, 4, 8), (1, 2, 4), True)
    """
    settings = checked(
        q, k, v, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
        seed, score_mod, block_mask
    )  # fmt: skip
    return registry.call("attention", implementation, q, k, v, **settings)


def attention_backward(
    g, q, k, v, out, logsumexp, *, causal=False, window=None, scale=None, soft_cap=None, bias=None, alibi_slopes=None,
    key_lengths=None, cu_seqlens=None, cu_seqlens_k=None, dropout_p=0.0, seed=0, score_mod=None, block_mask=None,
    bias_gradient=False, into=None, implementation="auto"
):  # fmt: skip
    """The gradients of `attention` with respect to q, k and v, for the gradient g of its output.

        P = exp(score - logsumexp)            dS = P * (dropout(g v^T) - rowsum(g * out))
        dq = scale * dS k                     dk = scale * dS^T q                  dv = dropout(P)^T g

    with dS multiplied by the derivative of what changed the scores. g and out are shaped like q; `logsumexp` and `out`
    are what `attention` returned for the same q, k, v and settings. The weights P are computed again, tile by tile,
    instead of being kept.

    Returns (dq, dk, dv), shaped like q, k and v: new arrays, or the three given in `into`, which may be parts of one.
    With `bias_gradient` a fourth, shaped like `bias`: dS before the soft cap's derivative, summed where the bias was
    broadcast. Raises as `attention` does.

    >>> import numpy as np
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 4, 8), dtype=np.float32)
    >>> out, logsumexp = attention(q, k, v)
    >>> dq, dk, dv = attention_backward(np.ones_like(out), q, k, v, out, logsumexp)
    >>> bool(np.allclose(dv.sum(axis=2), 4, atol=1e-5))  # each of the four queries hands out weights that sum to one
    True
    """
    settings = checked(
        q, k, v, causal, window, scale, soft_cap, bias, alibi_slopes, key_lengths, cu_seqlens, cu_seqlens_k, dropout_p,
        seed, score_mod, block_mask
    )  # fmt: skip
    check_backward(g, q, k, v, out, logsumexp, bias, bias_gradient, into)
    arguments = g, q, k, v, out, logsumexp
    *gradients, d_bias = registry.call(
        "attention_backward", implementation, *arguments, **settings, bias_gradient=bool(bias_gradient), into=into
    )
    return (*gradients, d_bias.reshape(bias.shape)) if bias_gradient else tuple(gradients)
