"""Which parameters decay."""

from __future__ import annotations

import re

from . import settings
from .parameters import named_tensors

__all__ = ["decay_groups", "is_embedding"]

# wte, embed_tokens, word_embeddings, tok_emb, token_embedding_table, relative_attention_bias (T5's positions); but not
# GPT-NeoX's embed_out, which is an output projection.
_EMBEDDING = re.compile(
    r"wte|wpe|relative_attention_bias|(.+_)?emb(ed|eds|edding|eddings)?(_(in|tokens|positions|table|weights?))?"
)


def is_embedding(name: str) -> bool:
    """Whether a parameter is an embedding table, judged by its name as GPT-2, Llama, BERT, T5 and nanoGPT spell it.

    What counts is the module that holds the table: `embeddings.project.weight`, a matrix beside embeddings, is none.

    >>> [is_embedding(name) for name in ("transformer.wte.weight", "model.embed_tokens.weight", "lm_head.weight")]
    [True, True, False]
    """
    parts = [part for part in name.split(".") if not part.isdigit()]
    if len(parts) > 1 and parts[-1] == "weight":
        parts.pop()
    return parts != [] and _EMBEDDING.fullmatch(parts[-1]) is not None


def decay_groups(named_parameters, weight_decay: float, *, decay_embeddings: bool = False) -> list[dict]:
    """Two parameter groups: matrices, which decay, and biases, norms and embeddings, which do not.

    Decay shrinks directions that the data does not hold up. Biases and the gains of norms (tensors with fewer than two
    axes) are few and set scales; rows of an embedding (`is_embedding`) would shrink for being rare. nanoGPT decays
    embeddings too: `decay_embeddings=True`.

    `named_parameters` is an iterable of (name, tensor) pairs. A tied weight, which comes up under several names, counts
    once, under the first, and as an embedding if any of them is one. Returns group dicts for an optimiser, named
    "decay" and "no_decay", without those that would be empty.

    >>> w, b = minilm.tensor([[1.0]], requires_grad=True), minilm.tensor([1.0], requires_grad=True)
    >>> [(g["name"], g["weight_decay"]) for g in decay_groups([("w", w), ("b", b)], 0.1)]
    [('decay', 0.1), ('no_decay', 0.0)]
    """
    weight_decay = settings.nonnegative("weight_decay", weight_decay)
    names: dict = {}
    for i, (name, parameter) in enumerate(named_tensors(named_parameters, "named_parameters")):
        if name is None:
            raise TypeError(
                f"named_parameters[{i}] has no name, and names tell embeddings from other matrices; pass "
                "model.named_parameters()"
            )
        names.setdefault(parameter, []).append(name)
    groups: dict[str, list] = {"decay": [], "no_decay": []}
    for parameter, aliases in names.items():
        spared = not decay_embeddings and any(is_embedding(name) for name in aliases)
        groups["decay" if parameter.ndim >= 2 and not spared else "no_decay"].append((aliases[0], parameter))
    decay = {"decay": weight_decay, "no_decay": 0.0}
    return [{"name": key, "params": pairs, "weight_decay": decay[key]} for key, pairs in groups.items() if pairs]
