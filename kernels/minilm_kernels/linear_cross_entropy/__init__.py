"""Cross-entropy fused with the projection that makes the logits, which never exist whole."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["linear_cross_entropy", "linear_cross_entropy_backward"]


def linear_cross_entropy(
    x,
    weight,
    targets,
    *,
    bias=None,
    g=None,
    ignore_index=-100,
    label_smoothing=0.0,
    chunk=None,
    implementation="auto",
):
    """`cross_entropy` of the logits x weight^T + bias, a few rows at a time: O(chunk V) memory instead of O(N V).

    `x` (N, C), `weight` (V, C), `bias` (V,) or None, of one floating dtype; `targets` (N,) integers in [0, V) or
    `ignore_index`. Returns (losses (N,), logsumexp (N,)), like `g` float32 where the others have 16 bits.

    With `g` (N,), the gradient that will arrive at each row's loss (1/N for the mean of N rows), the gradients are
    computed while a chunk's logits are there, as in Liger-Kernel's fused loss (Hsu et al. 2024, arXiv:2410.10989):
    it returns (losses, logsumexp, dx, dweight, dbias) then, with three matrix products in all, as many as unfused.
    `linear_cross_entropy_backward` needs no `g` beforehand, and one product more.

    `chunk` is the number of rows; None takes as many as make 64 MiB of logits, from 128 to 1024 of them, on a GPU as
    many as make 512 MiB, from 128 on, and cuts the rows evenly. ValueError or TypeError for other shapes and dtypes;
    ValueError for a target out of range, by its row, where it can be known without waiting for a GPU: kernels there
    make its loss and the gradients NaN.

    >>> x, weight = np.array([[1.0]]), np.log([[1.0], [3.0]])
    >>> linear_cross_entropy(x, weight, np.array([1]))[0]
    array([0.28768207])
    >>> linear_cross_entropy(x, weight, np.array([1]), g=np.ones(1))[3]
    array([[ 0.25],
           [-0.25]])
    """
    _check(x, weight, targets, bias, label_smoothing, chunk)
    if g is not None:
        checks.matches("g", g, x.shape[:1], checks.wide(x))
    settings = {"bias": bias, "g": g, "ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
    return registry.call("linear_cross_entropy", implementation, x, weight, targets, **settings)


def linear_cross_entropy_backward(
    g, x, weight, targets, *, bias=None, ignore_index=-100, label_smoothing=0.0, chunk=None, implementation="auto"
):
    """The gradients of `linear_cross_entropy` from `g` (N,), the one that arrives at each row's loss.

    The other arguments are those that the forward pass had. The logits are computed again, chunk by chunk. Returns
    (dx, dweight, dbias), dbias None without a bias.

    >>> linear_cross_entropy_backward(np.ones(1), np.array([[1.0]]), np.log([[1.0], [3.0]]), np.array([1]))
    (array([[-0.27465307]]), array([[ 0.25],
           [-0.25]]), None)
    """
    _check(x, weight, targets, bias, label_smoothing, chunk)
    checks.matches("g", g, x.shape[:1], checks.wide(x))
    settings = {"bias": bias, "ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
    return registry.call("linear_cross_entropy_backward", implementation, x, g, weight, targets, **settings)


def rows_of_chunk(chunk: int | None, x, weight, *, logits_bytes: int, most: int | None = None) -> int:
    """How many rows' logits are there at a time, of the N that there are.

    Where `chunk` is None, the logits take `logits_bytes` but are those of 128 to `most` rows, and chunks are alike.
    """
    if chunk is not None:
        return min(chunk, len(x))
    rows = max(logits_bytes // (len(weight) * x.itemsize), 128)
    rows = rows if most is None else min(rows, most)
    chunks = -(-len(x) // rows) or 1
    return -(-len(x) // chunks)


def _check(x, weight, targets, bias, label_smoothing, chunk):
    checks.has_columns("x", x)
    if x.ndim != 2 or weight.ndim != 2 or len(weight) == 0:
        raise ValueError(
            f"x and weight have shapes {x.shape} and {weight.shape}; expected (N, C) and (V, C) with V of 1 or more"
        )
    checks.matches("weight", weight, (len(weight), x.shape[1]), x.dtype)
    if bias is not None:
        checks.matches("bias", bias, (len(weight),), x.dtype)
    checks.is_integer("targets", targets, x.shape[:1])
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a share in [0, 1]")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected a number of rows, 1 or more, or None")
