"""A GPT-2 that is small, and ids for it."""

from __future__ import annotations

import numpy as np

import minilm
from minilm.models import GPT2, GPT2Config

__all__ = ["TINY", "tiny", "tokens"]

TINY = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}


def tiny(seed=0, **changes) -> GPT2:
    """A small model whose weights are far from their start, biases and norms included."""
    model = GPT2(GPT2Config(**{**TINY, **changes}))
    stream = minilm.backend.Generator(seed)
    for name, parameter in model.named_parameters():
        noise = stream.normal(parameter.shape, std=0.2)
        parameter.data = (1 + noise if "ln_" in name and name.endswith("weight") else noise).astype(np.float32)
    return model.eval()


def tokens(*shape, seed=0) -> np.ndarray:
    """Ids of that shape."""
    return np.random.default_rng(seed).integers(0, TINY["vocab_size"], shape)
