"""Raw arrays in, raw arrays out: forward and backward of a transformer's hot operations.

    import numpy as np
    from minilm_kernels import layer_norm, layer_norm_backward

    x = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
    y, mean, rstd = layer_norm(x)
    dx, dweight, dbias = layer_norm_backward(np.ones_like(y), x, None, mean, rstd)

One folder an operation; in it `reference.py` is the specification in plain array code, `cpu.py` the Numba kernel. The
public functions choose by the arrays given; `implementation="reference"` (or any other registered name) overrides.
This package imports nothing of `minilm` and is useful without it.
"""

# A function may have the name of the folder that it lies in. These imports bind the functions after the folders, and
# Python binds a folder's module once, at its first import: `minilm_kernels.attention` is the function from here on.
# They are light: an implementation, and Numba with it, is imported when an operation first runs.
from .adamw import adamw
from .add_bias import add_bias
from .add_layer_norm import add_layer_norm, add_layer_norm_backward
from .add_rms_norm import add_rms_norm, add_rms_norm_backward
from .ahead import compile_ahead
from .attention import attention, attention_backward
from .column_sums import column_sums
from .cross_entropy import cross_entropy, cross_entropy_backward
from .cross_entropy_with_gradient import cross_entropy_with_gradient
from .decoder_step import decoder_step
from .dequantize import dequantize
from .dropout import dropout
from .elementwise import elementwise, elementwise_backward
from .embedding import embedding_backward
from .gelu import gelu, gelu_backward
from .global_norm import global_norm
from .gru import gru, gru_backward
from .gru_cell import gru_cell, gru_cell_backward
from .lamb import lamb
from .layer_norm import layer_norm, layer_norm_backward
from .linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_backward
from .log_softmax import log_softmax, log_softmax_backward
from .lstm import lstm, lstm_backward
from .lstm_cell import lstm_cell, lstm_cell_backward
from .quantize import quantize
from .quantized_matmul import quantized_matmul
from .registry import implementations, operations
from .rms_norm import rms_norm, rms_norm_backward
from .rotary import rotary, rotary_backward
from .softmax import softmax, softmax_backward
from .swiglu import swiglu, swiglu_backward
from .threads import get_num_threads, set_num_threads

__all__ = [
    "adamw",
    "add_bias",
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "attention",
    "attention_backward",
    "column_sums",
    "compile_ahead",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_with_gradient",
    "decoder_step",
    "dequantize",
    "dropout",
    "elementwise",
    "elementwise_backward",
    "embedding_backward",
    "gelu",
    "gelu_backward",
    "get_num_threads",
    "global_norm",
    "gru",
    "gru_backward",
    "gru_cell",
    "gru_cell_backward",
    "implementations",
    "lamb",
    "layer_norm",
    "layer_norm_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "log_softmax",
    "log_softmax_backward",
    "lstm",
    "lstm_backward",
    "lstm_cell",
    "lstm_cell_backward",
    "operations",
    "quantize",
    "quantized_matmul",
    "rms_norm",
    "rms_norm_backward",
    "rotary",
    "rotary_backward",
    "set_num_threads",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
]
