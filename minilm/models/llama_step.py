"""The next token through all of a Llama's layers in one kernel call, where decoding goes token by token.

A layer's forward pass is eighteen operations. For one token of a small model starting them takes longer than what they
do, so that `kernels.decoder_step` does all layers in one. What it can't do, the layers do as ever: several tokens or
rows, masks, gradients, hooks, layers exchanged for others, another device.
"""

from __future__ import annotations

from operator import is_
from weakref import WeakKeyDictionary

import minilm_kernels as kernels
import numpy as np
from minilm_kernels.decoder_step import WEIGHTS, StepWeights
from minilm_kernels.registry import choose

from minilm import nn, ops
from minilm.autograd import Tensor
from minilm.autograd.mode import state
from minilm.nn import KeyValueCache

__all__ = ["step_through_layers"]

# A model's layers -> their arrays, as they were, and these as `StepWeights`, None where no kernel takes them.
_prepared: WeakKeyDictionary = WeakKeyDictionary()


def step_through_layers(model, kinds: tuple, x: Tensor, rotary: tuple, mask: dict, cache) -> Tensor | None:
    """x (1, 1, C) after `model.layers`, its keys and values in the cache; None, and nothing done, where it can't.

    `kinds` are the classes that a layer, its attention and its MLP have unless somebody exchanged them.
    """
    if type(cache) is not KeyValueCache or not len(cache) or mask or x.shape[:2] != (1, 1):
        return None
    if (
        state.recording
        or state.trace is not None
        or state.anomaly
        or state.autocast is not None
        or type(x.data) is not np.ndarray
    ):
        return None
    config = model.layers[0].self_attn
    arrays = _arrays(model.layers, kinds)
    if arrays is None or x.dtype != np.float32:
        return None
    keys, values = cache.make_room(1)
    cos, sin = (table.reshape(-1) for table in rotary)
    token, eps = x.data.reshape(-1), model.layers[0].input_layernorm.eps
    windows = tuple(layer.self_attn.window for layer in model.layers)
    settings = {"length": len(cache), "n_head": config.n_head, "eps": eps, "windows": windows}
    known, weights = _prepared.get(model.layers, ((), None))
    if len(known) != len(arrays) or not all(map(is_, known, arrays)):
        count = len(WEIGHTS)
        weights = StepWeights(tuple(arrays[i : i + count]) for i in range(0, len(arrays), count))
        chosen = choose("decoder_step", "auto", token, weights, keys, values, cos, sin, **settings)
        if chosen.name == "reference":  # the layers' own kernels are faster
            weights = None
        _prepared[model.layers] = arrays, weights
    if weights is None:
        return None
    y = kernels.decoder_step(token, weights, keys, values, cos, sin, **settings)
    cache.count(1)
    return Tensor(y.reshape(x.shape))


def _arrays(layers, kinds: tuple) -> list | None:
    """`WEIGHTS` of all layers one after the other; None where a layer is not what it was made as, or has hooks."""
    found, first = [], layers[0]
    shared = first.self_attn.n_head, first.input_layernorm.eps, first.input_layernorm.eps
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        )  # fmt: skip
        norms = layer.input_layernorm, layer.post_attention_layernorm
        own = (type(layer), type(attention), type(mlp), *map(type, norms)) == (*kinds, nn.RMSNorm, nn.RMSNorm)
        if not own or mlp.act is not ops.silu or (attention.n_head, *(norm.eps for norm in norms)) != shared:
            return None
        modules = (layer, attention, mlp, *parts, *norms)
        if any("_forward_hooks" in module.__dict__ or "forward" in module.__dict__ for module in modules):
            return None
        matrices = []
        for part in parts:
            kind = type(part)
            if kind is nn.Linear:
                matrices.append(part.weight._data)
            elif kind is nn.QuantizedLinear:
                matrices.append(part.blocks._data)
            else:
                return None
        found += (norms[0].weight._data, *matrices[:4], norms[1].weight._data, *matrices[4:])
        found += (None if part.bias is None else part.bias._data for part in parts)
    return found
