"""The peer: GPT-2 as one would write it plainly in torch, with the same weight names and the same shapes as ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.attn_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        heads = (batch, length, self.n_head, width // self.n_head)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(width, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class TorchGPT(nn.Module):
    """GPT-2 without dropout, its head tied to the token embeddings."""

    def __init__(self, vocab_size: int, n_positions: int, n_embd: int, n_layer: int, n_head: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(n_positions, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    @torch.no_grad()
    def load_ours(self, weights: dict) -> None:
        """Takes weights under GPT-2's published names; its Conv1D matrices are stored the other way round."""
        renamed = {"attn.c_attn": "c_attn", "attn.c_proj": "attn_proj", "mlp.c_fc": "c_fc", "mlp.c_proj": "mlp_proj"}
        own = dict(self.named_parameters())
        for name, array in weights.items():
            name = name.removeprefix("transformer.")
            value = torch.from_numpy(array.copy())
            for ours, here in renamed.items():
                if f".{ours}.weight" in name:
                    value = value.T
                name = name.replace(f".{ours}.", f".{here}.")
            own.pop(name).copy_(value)
        assert not own, f"weights missing: {list(own)}"

    def groups(self, weight_decay: float) -> list[dict]:
        """Parameter groups as ours: no decay on biases, norms and embeddings."""
        decayed = [p for name, p in self.named_parameters() if p.ndim >= 2 and "wte" not in name and "wpe" not in name]
        others = [p for p in self.parameters() if not any(p is d for d in decayed)]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
