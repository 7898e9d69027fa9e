"""One new token through a whole stack of decoder layers: what a step of decoding asks of a model, in one call."""

from __future__ import annotations

from .. import checks, registry
from ..block_formats import BLOCK, BLOCK_BYTES

__all__ = ["WEIGHTS", "StepWeights", "decoder_step"]

# A layer's arrays, in order: norms (C,), matrices (N, K) or their blocks, biases (N,) or None.
WEIGHTS = (
    "input_norm", "q", "k", "v", "o", "post_norm", "gate", "up", "down",
    "q_bias", "k_bias", "v_bias", "o_bias", "gate_bias", "up_bias", "down_bias",
)  # fmt: skip


class StepWeights(tuple):
    """The layers' arrays, a tuple of `WEIGHTS` for each; an implementation may note in it where they lie."""

    notes: object = None


def decoder_step(
    x, weights, keys, values, cos, sin, *, length, n_head, eps=1e-6, windows=None, implementation="auto"
):  # fmt: skip
    """The residual stream after layers of a Llama (arXiv:2302.13971), for the one token whose stream x is before them.

        h = rms_norm(x)       q, k, v = h Wq^T, h Wk^T, h Wv^T        q, k turned by `cos` and `sin`
        x += attention(q, keys, values) Wo^T                          k, v put in place `length` of keys and values
        h = rms_norm(x)       x += (silu(h Wgate^T) * (h Wup^T)) Wdown^T

    A step of decoding does little in each operation, so that starting it takes longer than doing it: with layers of 576
    channels three fifths of the time. Here all layers are one call.

    x (C,); `weights` a tuple of `WEIGHTS` for each layer, better as `StepWeights`; matrices are of x's dtype, or uint8
    blocks of Q8_0, Q4_0 or Q4_1. `keys` and `values` are lists of (1, Hk, S, D), a pair a layer, with `length` tokens
    so far and room for one more; place `length` is written. `cos` and `sin` (D / 2,) as for `rotary`. `windows`: how
    many keys, its own included, the token sees in each layer; None for all.

    Returns x (C,) after the last layer, before a model's last norm. Raises ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> draw = lambda *shape: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    >>> layer = [draw(8), draw(8, 8), draw(4, 8), draw(4, 8), draw(8, 8), draw(8), draw(6, 8), draw(6, 8), draw(8, 6)]
    >>> keys, values = [np.zeros((1, 1, 5, 4), np.float32)], [np.zeros((1, 1, 5, 4), np.float32)]
    >>> turn = np.ones(2, np.float32), np.zeros(2, np.float32)
    >>> y = decoder_step(draw(8), [(*layer, *[None] * 7)], keys, values, *turn, length=3, n_head=2)
    >>> y.shape, [i for i in range(5) if keys[0][0, 0, i].any()]
    ((8,), [3])
    """
    checks.is_floating("x", x)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"x has shape {x.shape}; expected (C,), the stream of one token")
    if len(keys) != len(weights) or len(values) != len(weights):
        raise ValueError(
            f"there are {len(weights)} layers, {len(keys)} keys and {len(values)} values; expected as many"
        )
    windows = windows or (None,) * len(weights)
    if len(windows) != len(weights):
        raise ValueError(f"windows has {len(windows)} entries; expected one for each of the {len(weights)} layers")
    checks.matches("sin", sin, cos.shape, x.dtype)
    checks.matches("cos", cos, sin.shape, x.dtype)
    D = 2 * cos.size
    if not (isinstance(weights, StepWeights) and weights.notes is not None):  # else these were looked at before
        for number, layer in enumerate(weights):
            _check_layer(number, layer, x, n_head, D)
    for number, (k, v) in enumerate(zip(keys, values)):
        heads = len(weights[number][2]) // D
        if k.ndim != 4 or k.shape[:2] != (1, heads) or k.shape[3] != D or k.dtype != x.dtype or k.shape != v.shape:
            raise ValueError(
                f"keys of layer {number} are {k.dtype} {k.shape} and values {v.dtype} {v.shape}; expected (1, {heads}, "
                f"room, {D}) of {x.dtype}"
            )
        if not 0 <= length < k.shape[2]:
            raise ValueError(f"length is {length} and there is room for {k.shape[2]} tokens; make room for one more")
    settings = {"length": length, "n_head": n_head, "eps": eps, "windows": tuple(windows)}
    return registry.call("decoder_step", implementation, x, weights, keys, values, cos, sin, **settings)


def _check_layer(number: int, layer, x, n_head: int, D: int) -> None:
    if len(layer) != len(WEIGHTS):
        raise ValueError(f"layer {number} has {len(layer)} arrays; expected {len(WEIGHTS)}: {', '.join(WEIGHTS)}")
    named = dict(zip(WEIGHTS, layer))
    C, inner, heads = x.size, len(named["gate"]), len(named["k"])
    if heads == 0 or heads % D or n_head * D % heads:
        raise ValueError(f"k of layer {number} has {heads} rows; expected a divisor of {n_head} heads times D = {D}")
    for name in ("input_norm", "post_norm"):
        checks.matches(f"{name} of layer {number}", named[name], (C,), x.dtype)
    rows = {"q": n_head * D, "k": heads, "v": heads, "o": C, "gate": inner, "up": inner, "down": C}
    columns = {"o": n_head * D, "down": inner}
    for name, N in rows.items():
        array, K, bias = named[name], columns.get(name, C), named[f"{name}_bias"]
        if array.dtype == x.dtype:
            checks.matches(f"{name} of layer {number}", array, (N, K), x.dtype)
        elif format_of(array, K) is None or array.shape[0] != N:
            raise ValueError(
                f"{name} of layer {number} is {array.dtype} {array.shape}; expected {x.dtype} {(N, K)}, or uint8 "
                f"blocks of {N} rows of {K} numbers"
            )
        if bias is not None:
            checks.matches(f"{name}_bias of layer {number}", bias, (N,), x.dtype)


def format_of(array, K: int) -> str | None:
    """The block format of rows of K numbers, which their bytes tell; None for other arrays."""
    if array.dtype.name != "uint8" or array.ndim != 2 or K % BLOCK:
        return None
    return {K // BLOCK * size: name for name, size in BLOCK_BYTES.items()}.get(array.shape[1])
