"""LSTM and GRU along a sequence, as one operation: against differences, their compositions, and in low precision."""

from __future__ import annotations

import numpy as np
import pytest
from devices import beside
from hypothesis import given
from hypothesis import strategies as st

import minilm
from minilm import ops
from minilm.autograd import grad

T, B, C = 4, 3, 2
LSTM = [(T, B, 4 * C), (4 * C, C), (B, C), (B, C)]
GRU = [(T, B, 3 * C), (3 * C, C), (3 * C,), (B, C)]
MASKS = {
    "whole": None,
    "padded right": np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]], bool),
    "padded left": np.array([[1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 1]], bool),
    "with a hole": np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], bool),
}


def layer(name, alive, reverse):
    """The operation, on whatever device its arrays are."""

    def function(*arrays):
        return getattr(ops, name)(*arrays, None if alive is None else beside(arrays[0], alive), reverse)

    return function


def stepwise(name, alive, reverse):
    """The same by the operation's composition."""
    composed = getattr(ops.recurrent_layers, f"_{name}").composed
    return lambda *arrays: composed(*arrays, alive, reverse)


def outputs_and_gradients(function, arrays):
    inputs = [None if x is None else minilm.tensor(x, requires_grad=True) for x in arrays]
    outputs = function(*inputs)
    weights = [np.cos(np.arange(y.size)).reshape(y.shape) for y in outputs]
    loss = sum((y * minilm.tensor(w, dtype=y.dtype)).sum() for y, w in zip(outputs, weights))
    wanted = [x for x in inputs if x is not None]
    return [y.data for y in outputs], [x.data for x in grad(loss, wanted, allow_unused=True)]


def assert_same(mine, theirs, atol):
    for kind, ours, other in zip(("outputs", "gradients"), mine, theirs):
        for i, (a, b) in enumerate(zip(ours, other, strict=True)):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_allclose(a.astype("f8"), b.astype("f8"), atol=atol, rtol=atol, err_msg=f"{kind} {i}")


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("name", "shapes"), [("lstm", LSTM), ("gru", GRU)], ids=["lstm", "gru"])
def test_gradients_of_both_orders(name, shapes, mask, reverse, check):
    check(layer(name, MASKS[mask], reverse), shapes, second=not reverse)


def test_a_gru_without_a_bias(check):
    check(lambda sums, weight, h: ops.gru(sums, weight, None, h), [(T, B, 3 * C), (3 * C, C), (B, C)])


@given(
    name=st.sampled_from(["lstm", "gru"]),
    sizes=st.tuples(st.integers(1, 12), st.integers(0, 9), st.integers(1, 40)),
    masked=st.booleans(),
    reverse=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_as_step_by_step(name, sizes, masked, reverse, bias, seed):
    (T, B, C), random = sizes, np.random.default_rng(seed)
    shapes = [(T, B, 4 * C), (4 * C, C), (B, C), (B, C)] if name == "lstm" else [
        (T, B, 3 * C), (3 * C, C), (3 * C,), (B, C)]  # fmt: skip
    arrays = [random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    arrays[1] *= np.float32(C**-0.5)  # else a rounding grows from step to step
    if name == "gru" and not bias:
        arrays[2] = None
    alive = random.random((T, B)) < 0.7 if masked else None
    mine, theirs = (outputs_and_gradients(kind(name, alive, reverse), arrays) for kind in (layer, stepwise))
    assert_same(mine, theirs, 1e-5 * (1 + C))
    if masked:
        assert not mine[0][0][~alive].any()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_of_no_tokens_the_state_stays(name):
    shapes = {"lstm": LSTM, "gru": GRU}[name]
    arrays = [np.ones((0, *shapes[0][1:]), np.float32), *(np.ones(shape, np.float32) for shape in shapes[1:])]
    outputs, *last = getattr(ops, name)(*arrays)
    assert outputs.shape == (0, B, C)
    assert all((part == 1).all() for part in last)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_in_a_low_precision_the_state_is_float32(name, dtype, rng):
    """And errors are those of operation after operation, or less."""
    shapes = {"lstm": LSTM, "gru": GRU}[name]
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]

    def walk(sums, weight, *rest):  # every operation by itself, as `autocast` casts for it
        *bias, h = rest if name == "gru" else rest[:1]
        c, outputs = rest[-1], []
        for t in range(T):
            hiddens = ops.linear(h, weight, *bias)
            if name == "gru":
                h = ops.gru_cell(sums[t], hiddens, h)
            else:
                h, c = ops.lstm_cell(sums[t] + hiddens, c)
            outputs.append(h)
        return ops.stack(outputs), h, *([c] if name == "lstm" else [])

    exact = outputs_and_gradients(walk, [x.astype("f8") for x in arrays])
    errors = []
    for function in (walk, getattr(ops, name)):
        with minilm.autocast(dtype):
            found = outputs_and_gradients(
                function, [arrays[0].astype(minilm.backend.resolve_dtype(dtype)), *arrays[1:]]
            )
        assert all(y.dtype == np.float32 for y in found[0] + found[1][1:])
        errors.append([abs(a.astype("f8") - b).max() for a, b in zip([*found[0], *found[1]], [*exact[0], *exact[1]])])
    eps = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    sizes = [abs(b).max() for b in [*exact[0], *exact[1]]]
    for plain, fused, size in zip(*errors, sizes):
        assert fused <= 2 * plain + eps * size


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_of_16_bits_alone_outputs_have_16_bits(name, rng):
    arrays = [rng.standard_normal(s).astype(np.float16) for s in {"lstm": LSTM, "gru": GRU}[name]]
    found = outputs_and_gradients(getattr(ops, name), arrays)
    exact = outputs_and_gradients(getattr(ops, name), [x.astype("f8") for x in arrays])
    for a, b in zip([*found[0], *found[1]], [*exact[0], *exact[1]]):
        assert a.dtype == np.float16
        np.testing.assert_allclose(a.astype("f8"), b, atol=2e-2, rtol=2e-2)


def test_outputs_that_were_changed_are_noticed():
    inputs = [minilm.tensor(np.ones(shape), requires_grad=True) for shape in LSTM]
    outputs, _, _ = ops.lstm(*inputs)
    loss = outputs.sum()
    outputs.detach().mul_(2.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_what_does_not_fit_is_refused():
    sums, weight, state = np.zeros((T, B, 4 * C)), np.zeros((4 * C, C)), np.zeros((B, C))
    with pytest.raises(ValueError, match=r"lstm of sums \(4, 3, 8\).*expected \(T, B, 4 C\)"):
        ops.lstm(sums, weight, state, state[:1])
    with pytest.raises(ValueError, match=r"gru of sums"):
        ops.gru(sums, weight, None, state)
    with pytest.raises(TypeError, match=r"lstm of weight_hh float64, h float64, c float32; expected one dtype"):
        ops.lstm(sums, weight, state, state.astype(np.float32))
    with pytest.raises(ValueError, match=r"alive has shape \(3, 4\); expected \(4, 3\)"):
        ops.lstm(sums, weight, state, state, np.ones((B, T), bool))
