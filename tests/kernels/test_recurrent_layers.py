"""lstm and gru: what their workloads do not draw; the numbers themselves are checked with all other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import gru, gru_backward, lstm, lstm_backward

T, B, C = 9, 70, 65  # two blocks of rows, five tasks of features, the last of one: enough for several threads
GATES = {"lstm": 4, "gru": 3}


@pytest.fixture(params=GATES)
def layer(request, rng):
    """(forward(alive, x, ...), backward of what forward found) of an LSTM or a GRU; x (T, B, ...) are its sums."""
    gates = GATES[request.param]

    def draw(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    sums, weight, bias, h, c, g = (
        draw(T, B, gates * C),
        draw(gates * C, C) / 8,
        draw(3 * C),
        *draw(2, B, C),
        draw(T, B, C),
    )

    def forward(alive=None, x=sums, h=h, **how):
        if request.param == "lstm":
            return lstm(x, weight, h, c, alive=alive, **how)
        return gru(x, weight, bias, h, alive=alive, **how)

    def backward(found, alive=None, **how):
        if request.param == "lstm":
            return lstm_backward(g, h, c, weight, *found[1:], alive=alive, **how)
        return gru_backward(g, h, weight, *found, alive=alive, **how)

    return sums, h, forward, backward


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_padding_changes_nothing(layer, implementation, rng):
    """Not even where it holds NaN: the states before and after are one another's bits."""
    sums, _, forward, backward = layer
    alive = rng.random((T, B)) < 0.6
    hs, *_ = found = forward(alive, implementation=implementation)
    np.testing.assert_array_equal(hs[1:][~alive], hs[:-1][~alive])
    dsums, *_ = backward(found, alive, implementation=implementation)
    assert not dsums[~alive].any()
    assert dsums[alive].all()
    again, *_ = forward(alive, np.where(alive[..., None], sums, np.float32(np.nan)), implementation=implementation)
    np.testing.assert_array_equal(again, hs)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_a_nan_stays_in_its_row(layer, implementation):
    sums, _, forward, _ = layer
    spoiled = sums.copy()
    spoiled[4, 7] = np.nan
    hs, clean = forward(x=spoiled, implementation=implementation)[0], forward(implementation=implementation)[0]
    assert np.isnan(hs[5:, 7]).all()
    hs[5:, 7] = clean[5:, 7]
    np.testing.assert_array_equal(hs, clean)


def test_same_bits_on_any_number_of_threads(layer, same_bits, monkeypatch):
    _, _, forward, backward = layer
    monkeypatch.setattr("minilm_kernels.recurrence._SERIAL_BELOW", 0)
    found = forward(implementation="cpu")
    same_bits(lambda: forward(implementation="cpu"))
    same_bits(lambda: backward(found, implementation="cpu"))


def test_what_it_does_not_take(layer):
    sums, h, forward, _ = layer
    with pytest.raises(ValueError, match="which pays from 8 steps on"):
        forward(x=sums[:7], implementation="cpu")
    with pytest.raises(ValueError, match=r"expected \(T, B, [34] C\) and \([34] C, C\)"):
        forward(x=sums[..., 1:])
    with pytest.raises(ValueError, match=r"h has shape \(70, 64\); expected \(70, 65\)"):
        forward(h=h[:, 1:])
    with pytest.raises(ValueError, match=r"alive is int64 \(9, 70\); expected booleans \(9, 70\)"):
        forward(np.ones((T, B), np.int64))
