"""BERTs that are small, with any head; ids for them, and what they return."""

from __future__ import annotations

import numpy as np

import minilm
from minilm import models

__all__ = ["CLASSES", "IDS", "TINY", "arrays", "tiny"]

TINY = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 16,
}  # fmt: skip
CLASSES = [
    models.Bert, models.BertForMaskedLM, models.BertForPreTraining, models.BertForSequenceClassification,
    models.BertForTokenClassification, models.BertForQuestionAnswering,
]  # fmt: skip
IDS = np.random.default_rng(0).integers(0, 61, (3, 9))
IDS[0, 3] = 0  # padding where nothing is masked: a token as any other, which learns nothing


def tiny(kind, seed=0, **changes):
    """A small model whose weights are far from their start, biases and norms included."""
    model = kind(models.BertConfig(**{**TINY, **changes}))
    stream = minilm.backend.Generator(seed)
    for name, parameter in model.named_parameters():
        noise = stream.normal(parameter.shape, std=0.2)
        parameter.data = (1 + noise if name.endswith("LayerNorm.weight") else noise).astype(np.float32)
    return model.eval()


def arrays(out) -> dict[str, np.ndarray]:
    """Each array of an output of ours or of transformers', by name."""
    fields = vars(out) if not hasattr(out, "keys") else dict(out.items())
    found = {}
    for name, value in fields.items():
        if isinstance(value, tuple):
            found |= {f"{name} {i}": part for i, part in enumerate(value)}
        elif value is not None:
            found[name] = value
    return {k: v.data if isinstance(v, minilm.Tensor) else v.detach().numpy() for k, v in found.items()}
