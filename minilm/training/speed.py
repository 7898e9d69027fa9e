"""How fast a run is, against what the machine can do."""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from minilm import backend
from minilm.autograd import PRECISIONS

__all__ = ["flops_per_token", "matrix_rate"]


@cache
def matrix_rate(device: str = "cpu", seconds: float = 0.3, size: int = 1024, precision: str = "fp32") -> float:
    """Floating-point operations a second of a matrix product on `device`: the best of those timed in `seconds`.

    The ceiling that a training step is measured against, in the `precision` that it has on a GPU; on the CPU products
    are float32. Measured once in a process.
    """
    a = backend.to_device(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32), device)
    if device == "cuda" and PRECISIONS[precision] is not None:
        a = a.astype(backend.resolve_dtype(PRECISIONS[precision]))
    with backend.tf32(precision == "tf32"):
        backend.matmul(a, a)  # the library starts its threads
        best, end = float("inf"), time.perf_counter() + seconds
        while best == float("inf") or time.perf_counter() < end:
            backend.synchronize(device)
            started = time.perf_counter()
            backend.matmul(a, a)
            backend.synchronize(device)
            best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def flops_per_token(model, context: int) -> float:
    """Operations of a training step a token: 6 N + 12 L C T.

    N counts the weights that take part in matrix products (all but position embeddings, with the output layer counted
    also where it is tied), L layers of width C look at T = `context` positions. (Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B; the causal half is counted whole, as is usual.)

    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    >>> flops_per_token(model, context=32)
    57984
    """
    config = model.config
    multiplied = model.n_parameters - config.n_positions * config.n_embd
    if not config.tie_word_embeddings:
        multiplied -= config.vocab_size * config.n_embd
    return 6 * multiplied + 12 * config.n_layer * config.n_embd * context
