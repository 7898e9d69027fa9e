"""Which parts of a model's layers are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable

from minilm.autograd import recompute

from .module import Module

__all__ = ["RECOMPUTE", "Layer", "set_recompute"]

RECOMPUTE = ("none", "attention", "block")


class Layer(Module):
    """A layer of a transformer, whose `recompute` says which part of it is computed twice: see `set_recompute`.

    Its forward has to do the work through `part`, under the names "attention" and "block", as GPT2's does.

    >>> from minilm import nn
    >>> class Block(Layer):
    ...     def __init__(self):
    ...         self.mlp = nn.FeedForward(8)
    ...     def forward(self, x):
    ...         return self.part("block", lambda x: x + self.mlp(x), x)
    >>> model = nn.Sequential(Block(), Block())
    >>> set_recompute(model, "block")
    >>> model(minilm.tensor(np.ones((2, 8), np.float32))).sum().backward()
    >>> model[0].mlp.up_proj.weight.grad.shape
    (32, 8)
    """

    recompute = "none"

    def part(self, name: str, function: Callable, x, *rest):
        """function(x, *rest), computed again in the backward pass if `name` is what this layer recomputes.

        Not where something in `rest` would be changed a second time: a cache of keys, a list that takes results.
        """
        if self.recompute != name or not all(value is None or isinstance(value, (dict, tuple)) for value in rest):
            return function(x, *rest)
        return recompute(lambda x: function(x, *rest), x, parameters=self.parameters())


def set_recompute(model: Module, what: str) -> None:
    """Has every layer of `model` recompute its "attention" (with the norm before it), the whole "block", or "none".

    A step then takes longer, by a third at most, and the tape keeps less: of a block its input alone. Results stay the
    same bits. ValueError for another word, or for a model whose layers can't.

    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2))
    >>> set_recompute(model, "block")
    >>> [layer.recompute for layer in model.transformer.h]
    ['block', 'block']
    """
    if what not in RECOMPUTE:
        raise ValueError(f"recompute is {what!r}; expected one of {', '.join(RECOMPUTE)}")
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    if not layers and what != "none":
        raise ValueError(f"{type(model).__name__} has no layers that can be recomputed; GPT2 and Llama have")
    for layer in layers:
        layer.recompute = what
