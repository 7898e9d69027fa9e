"""The peer: a language model by torch's own LSTM or GRU, with the same weight names and the same shapes as ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TorchRecurrent(nn.Module):
    """Embedding, recurrent layers and a head tied to the embedding."""

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, cell: str) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        self.layers = getattr(nn, cell.upper())(hidden_size, hidden_size, num_layers, batch_first=True)

    def forward(self, ids, targets):
        logits = F.linear(self.layers(self.embed_tokens(ids))[0], self.embed_tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    def load_ours(self, weights: dict) -> None:
        self.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})

    def groups(self, weight_decay: float) -> list[dict]:
        """Parameter groups as ours: no decay on biases and embeddings."""
        decayed = [p for name, p in self.layers.named_parameters() if p.ndim >= 2]
        others = [self.embed_tokens.weight, *(p for p in self.layers.parameters() if p.ndim < 2)]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
