"""Arrays and a model for tests of one device beside another."""

from __future__ import annotations

import numpy as np

from minilm import backend
from minilm.models import GPT2, GPT2Config

__all__ = ["beside", "drawn_ids", "record_each_time", "small_gpt2"]


def beside(x, array):
    """`array`, a NumPy array, on the device of `x`, an array or a Tensor."""
    return backend.to_device(array, backend.device_of(getattr(x, "_data", x)))


def record_each_time(monkeypatch) -> None:
    """Has graphs on CuPy's stand-in, which does what it records but can't do it again, recorded at every call."""
    on_cuda = backend.Graph._on_cuda

    def recorded(graph, arrays):
        graph.warmup, graph._graph = 0, None
        return on_cuda(graph, arrays)

    monkeypatch.setattr(backend.Graph, "_on_cuda", recorded)


def small_gpt2(dropout: float = 0.0) -> GPT2:
    config = GPT2Config(
        vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout
    )  # fmt: skip
    return GPT2(config, backend.Generator(0))


def drawn_ids(seed: int, rows: int = 4, length: int = 17) -> np.ndarray:
    """Tokens of `small_gpt2`."""
    return backend.Generator(seed).integers(0, 61, (rows, length))
