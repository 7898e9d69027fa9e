"""Module and the layers."""

from . import init
from .attention import MultiHeadAttention, attention_mask_arguments
from .cache import KeyValueCache, SlidingWindowCache
from .containers import ModuleList, Sequential
from .layers import ACTIVATIONS, Conv1D, Dropout, Embedding, FeedForward, LayerNorm, Linear, RMSNorm, activation
from .module import Module, Parameter, eval_mode
from .quantized import QuantizedEmbedding, QuantizedLinear, project_together
from .recompute import RECOMPUTE, Layer, set_recompute
from .recurrent import GRU, LSTM
from .static_cache import StaticCache

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RECOMPUTE",
    "Conv1D",
    "Dropout",
    "Embedding",
    "FeedForward",
    "KeyValueCache",
    "Layer",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "Sequential",
    "SlidingWindowCache",
    "StaticCache",
    "activation",
    "attention_mask_arguments",
    "eval_mode",
    "init",
    "project_together",
    "set_recompute",
]
