"""decoder_step: what its workload does not draw; the numbers themselves are checked with all other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import decoder_step, quantize
from minilm_kernels.decoder_step import WEIGHTS, StepWeights

C, H, K, D, F, ROOM = 64, 4, 2, 16, 96, 8
SHAPES = {
    "q": (H * D, C),
    "k": (K * D, C),
    "v": (K * D, C),
    "o": (C, H * D),
    "gate": (F, C),
    "up": (F, C),
    "down": (C, F),
}


@pytest.fixture
def step(rng):
    """(weights of one layer by name, a function that runs the step with them)."""

    def draw(*shape):
        return rng.standard_normal(shape, dtype=np.float32) / 8

    layer = {name: draw(*shape) for name, shape in SHAPES.items()}
    layer |= {"input_norm": 1 + draw(C), "post_norm": 1 + draw(C)}
    layer |= {f"{name}_bias": None for name in SHAPES}
    x, keys, values, turn = draw(C), draw(1, K, ROOM, D), draw(1, K, ROOM, D), draw(2, D // 2)

    def run(weights=None, length=5, **given):
        arrays = {"x": x, "keys": [keys.copy()], "values": [values.copy()], "cos": turn[0], "sin": turn[1]} | given
        weights = [tuple(layer[name] for name in WEIGHTS)] if weights is None else weights
        place = arrays.pop("x"), weights, arrays.pop("keys"), arrays.pop("values"), arrays.pop("cos"), arrays.pop("sin")
        return decoder_step(*place, length=length, n_head=H, **arrays)

    return layer, run


def test_it_leaves_its_input_alone_and_writes_one_place(step, rng):
    _, run = step
    x, keys = rng.standard_normal(C, dtype=np.float32), np.zeros((1, K, ROOM, D), np.float32)
    values, before = keys.copy(), x.copy()
    y = run(x=x, keys=[keys], values=[values])
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(x, y)
    for cache in (keys, values):
        assert [i for i in range(ROOM) if cache[0, :, i].any()] == [5]


def test_noted_weights_give_the_same_bits_and_follow_changes_in_place(step):
    layer, run = step
    weights = StepWeights([tuple(layer[name] for name in WEIGHTS)])
    first = run(weights)
    assert weights.notes is not None
    np.testing.assert_array_equal(run(weights), first)
    np.testing.assert_array_equal(run(), first)
    layer["down"] *= 2
    changed = run(weights)
    np.testing.assert_array_equal(run(), changed)
    assert not np.array_equal(changed, first)


def test_other_windows_are_not_those_noted(step):
    layer, run = step
    weights = StepWeights([tuple(layer[name] for name in WEIGHTS)])
    whole, near = run(weights), run(weights, windows=(1,))
    assert not np.allclose(whole, near)
    np.testing.assert_array_equal(run(windows=(1,)), near)


def test_same_bits_on_any_number_of_threads(step, same_bits):
    same_bits(step[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((1, C), np.float32)}, r"x has shape \(1, 64\); expected \(C,\)"),
        ({"x": np.zeros(C, np.int64)}, "x is int64; expected floating"),
        ({"weights": []}, "there are 0 layers, 1 keys and 1 values"),
        ({"length": ROOM}, "length is 8 and there is room for 8 tokens"),
        ({"windows": (1, 2)}, "windows has 2 entries; expected one for each of the 1 layers"),
        ({"keys": [np.zeros((1, 1, ROOM, D), np.float32)]}, r"keys of layer 0 are float32 \(1, 1, 8, 16\)"),
        ({"cos": np.zeros(3, np.float32)}, "sin has shape"),
    ],
)
def test_misfits_are_named(step, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        step[1](**changes)


@pytest.mark.parametrize("name", ["q", "k", "o", "gate", "down", "up_bias", "post_norm"])
def test_a_misshapen_weight_is_named(step, name):
    layer, run = step
    layer[name] = np.zeros((5, 7), np.float32)
    with pytest.raises(ValueError, match="of layer 0"):
        run()


def test_blocks_of_another_length_are_named(step):
    layer, run = step
    layer["up"] = quantize(np.ones((F, 2 * C), np.float32), format="Q8_0")
    with pytest.raises(ValueError, match=r"up of layer 0 is uint8 \(96, 136\); .* 96 rows of 64 numbers"):
        run()
