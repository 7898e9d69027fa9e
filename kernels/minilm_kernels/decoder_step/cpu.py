"""decoder_step for the CPU: all layers in one compiled loop, whose products the pool's threads share."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from ..array_table import pointer
from ..attention.decode import decode
from ..block_formats import BLOCK
from ..dequantize.cpu import FORMAT_NUMBERS
from ..dequantize.lanes import HALVES
from ..jit import jit
from ..launch import in_parts
from ..quantized_matmul.one_row import in_digits, rows_of_blocks
from ..registry import register
from ..vector_math import logistic
from . import WEIGHTS, StepWeights, format_of
from .float_rows import rows_of_floats

PARTS = 16  # of a product: enough to keep the threads equally busy, where each is some microseconds of work
SERIAL_ATTENTION = 100_000  # multiply-adds of a layer's attention below which one thread does it

# A layer's row of the table: where its norms lie, and from _FIRST on five numbers for each matrix.
_INPUT_NORM, _POST_NORM, _WINDOW, _FIRST, _STEP = 0, 1, 2, 3, 5
_ADDRESS, _FORMAT, _ROWS, _COLUMNS, _BIAS = range(_STEP)
_MATRICES = "q", "k", "v", "o", "gate", "up", "down"
_Q, _K, _V, _O, _GATE, _UP, _DOWN = (_FIRST + i * _STEP for i in range(len(_MATRICES)))
_FLOATS = -1  # the format of a matrix that is not quantised


def _limits(x, weights, keys, values, cos, sin, **settings):
    looked_at = isinstance(weights, StepWeights) and weights.notes is not None
    arrays = () if looked_at else [array for layer in weights for array in layer if array is not None]
    if not all(array.flags.c_contiguous for array in (*arrays, *keys, *values)):
        return "it takes C-contiguous arrays"
    if any(array.dtype == np.float32 and array.ndim == 2 and array.shape[1] % 8 for array in arrays):
        return "it takes float32 matrices with rows of a multiple of 8 numbers"
    return None


@register("decoder_step", name="cpu", device="cpu", dtypes=("float32",), limits=_limits)
def decoder_step(x, weights, keys, values, cos, sin, *, length, n_head, eps, windows):
    if not isinstance(weights, StepWeights):
        weights = StepWeights(weights)
    if weights.notes is None or weights.notes[0] != windows:
        weights.notes = windows, _table(weights, n_head * 2 * cos.size, windows)
    x = np.array(x, order="C")
    if not len(weights):
        return x
    caches = np.array([[_address(k), _address(v), k.shape[2]] for k, v in zip(keys, values)], np.int64)
    turn = np.ascontiguousarray(cos), np.ascontiguousarray(sin)
    _run(_decode_parts(), weights.notes[1], caches, HALVES, x, *turn, length, n_head, np.float32(eps))
    return x


def _address(array) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


def _table(weights, attended: int, windows) -> np.ndarray:
    """(layers, numbers): a row a layer."""
    table = np.zeros((len(weights), _FIRST + _STEP * len(_MATRICES)), np.int64)
    for row, arrays, window in zip(table, weights, windows):
        layer = dict(zip(WEIGHTS, arrays))
        row[_INPUT_NORM], row[_POST_NORM] = _address(layer["input_norm"]), _address(layer["post_norm"])
        row[_WINDOW] = window or 0
        columns = {"o": attended, "down": len(layer["gate"])}
        for i, name in enumerate(_MATRICES):
            array, K = layer[name], columns.get(name, layer["input_norm"].size)
            format = format_of(array, K)
            number = _FLOATS if format is None else FORMAT_NUMBERS[format]
            entry = _address(array), number, len(array), array.shape[1], _address(layer[f"{name}_bias"])
            row[_FIRST + i * _STEP : _FIRST + (i + 1) * _STEP] = entry
    return table


@cache
def _decode_parts() -> int:
    from ..attention.decode_cpu import _kernel

    return _kernel()[1]


@jit(inline=True)
def _floats(address, count):
    return carray(pointer(address), (count,), np.float32)


@jit
def _project_part(table, first, count, halves, x, digits, scales, sums, y, start, stop):
    """Rows 4 start to 4 stop of `count` matrices one below the other."""
    begin = 0
    for at in range(first, first + count * _STEP, _STEP):
        rows, columns = table[at + _ROWS], table[at + _COLUMNS]
        low, high = max(4 * start - begin, 0), min(4 * stop - begin, rows)
        if low < high:
            address = pointer(table[at + _ADDRESS])
            if table[at + _FORMAT] == _FLOATS:
                rows_of_floats(carray(address, (rows * columns,), np.float32), columns, x, y, begin, low, high)
            else:
                blocks = carray(address, (rows * columns,), np.uint8)
                rows_of_blocks(
                    table[at + _FORMAT], halves, blocks, columns, digits, scales, sums, y, begin, low, high
                )  # fmt: skip
            if table[at + _BIAS] != 0:
                bias = _floats(table[at + _BIAS], rows)
                for n in range(low, high):
                    y[begin + n] += bias[n]
        begin += rows


@jit
def _project(table, first, count, halves, x, digits, scales, sums, y):
    """y = x times `count` matrices of a layer, the first of them at `first` in its row of the table."""
    rows, quantised = 0, False
    for at in range(first, first + count * _STEP, _STEP):
        rows += table[at + _ROWS]
        quantised |= table[at + _FORMAT] != _FLOATS
    scales = scales[: x.size // BLOCK]
    if quantised:
        in_digits(x, digits, scales, sums)
    in_parts(_project_part, PARTS, (rows + 3) // 4, (table, first, count, halves, x, digits, scales, sums, y))


@jit
def _normalise(x, weight, eps, y):
    squares = np.float32(0)
    for i in range(x.size):
        squares += x[i] * x[i]
    scale = np.float32(1) / np.sqrt(squares * (np.float32(1) / np.float32(x.size)) + eps)
    for i in range(x.size):
        y[i] = x[i] * scale * weight[i]


@jit
def _turn(head, cos, sin):
    """Rotates the pairs (i, i + D/2) of a head, in place."""
    for i in range(cos.size):
        a, b = head[i], head[cos.size + i]
        head[i], head[cos.size + i] = a * cos[i] - b * sin[i], b * cos[i] + a * sin[i]


@jit
def _add(x, y):
    for i in range(x.size):
        x[i] += y[i]


@jit
def _gate(gate, up, y):
    for i in range(y.size):
        y[i] = gate[i] * logistic(gate[i]) * up[i]


@jit
def _run(decode_parts, tables, caches, halves, x, cos, sin, length, n_head, eps):
    C, D, longest = x.size, 2 * cos.size, 0
    for layer in range(len(tables)):
        attended = tables[layer, _Q + _ROWS] + 2 * tables[layer, _K + _ROWS]
        longest = max(longest, max(C, attended, 2 * tables[layer, _GATE + _ROWS]))
    h, y = np.empty(longest, np.float32), np.empty(longest, np.float32)
    digits, scales = np.empty(2 * longest, np.int16), np.empty(longest // BLOCK, np.float32)
    sums = np.empty(longest // 4, np.float32)
    first, stop = np.zeros((1, 1), np.int64), np.full((1, 1), length + 1, np.int64)
    modifiers, modifier_tables = np.empty((0, 2), np.int64), np.empty((0, 64), np.int64)
    logsumexp, scale = np.empty((1, n_head, 1), np.float32), np.float32(1 / np.sqrt(D))
    for layer in range(len(tables)):
        table = carray(pointer(tables.ctypes.data + layer * tables.shape[1] * 8), (tables.shape[1],), np.int64)
        _normalise(x, _floats(table[_INPUT_NORM], C), eps, h[:C])
        _project(table, _Q, 3, halves, h[:C], digits, scales, sums, y)
        heads = table[_K + _ROWS] // D
        shape = (1, heads, caches[layer, 2], D)
        keys = carray(pointer(caches[layer, 0]), shape, np.float32)
        values = carray(pointer(caches[layer, 1]), shape, np.float32)
        for head in range(n_head + heads):
            _turn(y[head * D : (head + 1) * D], cos, sin)
        for head in range(heads):
            k, v = (n_head + head) * D, (n_head + heads + head) * D
            keys[0, head, length, :] = y[k : k + D]
            values[0, head, length, :] = y[v : v + D]
        q = y[: n_head * D].reshape((1, n_head, 1, D))
        out = h[: n_head * D].reshape((1, n_head, 1, D))
        first[0, 0] = max(0, length + 1 - table[_WINDOW]) if table[_WINDOW] > 0 else 0
        parallel = n_head * D * (length + 1 - first[0, 0]) > SERIAL_ATTENTION
        decode(
            decode_parts, q, keys, values, first, stop, scale, modifiers, modifier_tables, parallel, out, logsumexp
        )  # fmt: skip
        _project(table, _O, 1, halves, h[: n_head * D], digits, scales, sums, y)
        _add(x, y[:C])
        _normalise(x, _floats(table[_POST_NORM], C), eps, h[:C])
        _project(table, _GATE, 2, halves, h[:C], digits, scales, sums, y)
        inner = table[_GATE + _ROWS]
        _gate(y[:inner], y[inner : 2 * inner], h[:inner])
        _project(table, _DOWN, 1, halves, h[:inner], digits, scales, sums, y)
        _add(x, y[:C])
