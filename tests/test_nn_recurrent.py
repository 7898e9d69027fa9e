"""LSTM and GRU against torch's: outputs, states, gradients, padding, and derivatives of derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm import nn, ops
from minilm.autograd import gradcheck, gradgradcheck

CASES = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
    {"num_layers": 3},
]


def pair(torch, name, **settings):
    """Our layer and torch's, with the same weights."""
    ours = getattr(nn, name)(5, 7, **settings)
    theirs = getattr(torch.nn, name)(5, 7, batch_first=True, **settings)
    missing, unexpected = theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    assert not missing
    assert not unexpected
    return ours, theirs


def states(torch_state):
    return [part.detach().numpy() for part in (torch_state if isinstance(torch_state, tuple) else (torch_state,))]


@pytest.mark.parametrize("settings", CASES, ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_outputs_states_and_gradients_are_torchs(name, settings, torch):
    ours, theirs = pair(torch, name, **settings)
    x = np.random.default_rng(0).standard_normal((3, 6, 5), dtype=np.float32)
    first, (mine, given) = x[:, :2], (minilm.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True))
    _, state = ours(first)
    _, peer_state = theirs(torch.from_numpy(first))
    outputs, state = ours(mine, state)
    expected, peer_state = theirs(given, peer_state)
    np.testing.assert_allclose(outputs.data, expected.detach().numpy(), atol=2e-6)
    for a, b in zip(state if isinstance(state, tuple) else (state,), states(peer_state)):
        np.testing.assert_allclose(a.data, b, atol=2e-6)
    weights = np.random.default_rng(1).standard_normal(outputs.shape, dtype=np.float32)
    (outputs * weights).sum().backward()
    (expected * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(mine.grad.data, given.grad.numpy(), atol=1e-5)
    for parameter_name, parameter in theirs.named_parameters():
        found = getattr(ours, parameter_name).grad.data
        np.testing.assert_allclose(found, parameter.grad.numpy(), atol=2e-5, err_msg=parameter_name)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_padding_on_the_right_is_torchs_packed_sequence(name, torch):
    ours, theirs = pair(torch, name, num_layers=2, bidirectional=True)
    x, lengths = np.random.default_rng(0).standard_normal((3, 6, 5), dtype=np.float32), np.array([6, 2, 4])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    expected, peer_state = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    outputs, state = ours(x, mask=np.arange(6) < lengths[:, None])
    np.testing.assert_allclose(outputs.data, expected.detach().numpy(), atol=2e-6)
    for a, b in zip(state if isinstance(state, tuple) else (state,), states(peer_state)):
        np.testing.assert_allclose(a.data, b, atol=2e-6)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_padding_on_the_left_changes_nothing(name):
    layer = getattr(nn, name)(5, 7, num_layers=2)
    x = np.random.default_rng(0).standard_normal((2, 4, 5), dtype=np.float32)
    padded = np.concatenate([np.full((2, 3, 5), 9, np.float32), x], axis=1)
    outputs, _ = layer(padded, mask=np.array([[0, 0, 0, 1, 1, 1, 1]] * 2))
    np.testing.assert_array_equal(outputs.data[:, 3:], layer(x)[0].data)
    assert not outputs.data[:, :3].any()


@pytest.mark.parametrize(
    ("cell", "shapes"),
    [(ops.lstm_cell, [(2, 12), (2, 3)]), (ops.gru_cell, [(2, 9), (2, 9), (2, 3)])],
    ids=["lstm_cell", "gru_cell"],
)
def test_gradients_of_the_cells(cell, shapes):
    random = np.random.default_rng(0)
    inputs = [minilm.tensor(random.standard_normal(shape), requires_grad=True) for shape in shapes]

    def function(*given):
        out = cell(*given)
        return out[0] * out[1] if isinstance(out, tuple) else out

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_dropout_between_layers_and_errors():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    x = np.ones((2, 5, 3), np.float32)
    assert not np.array_equal(layer(x)[0].data, layer(x)[0].data)
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].data, layer(x)[0].data)
    with pytest.raises(ValueError, match=r"x must be \(B, T, 3\)"):
        layer(x[:, :, :2])
    with pytest.raises(ValueError, match=r"mask must be \(2, 5\)"):
        layer(x, mask=np.ones((2, 4)))
    with pytest.raises(ValueError, match="mask holds 1 for tokens and 0 for padding"):
        layer(x, mask=np.where(np.arange(5) < 3, 0, -np.inf) * np.ones((2, 1)))
    with pytest.raises(TypeError, match="weight_hh float32, h float64, c float64; expected one dtype"):
        layer(x.astype(np.float64))
    with pytest.raises(ValueError, match="the state must be"):
        layer(x, (np.zeros((1, 2, 4), np.float32),) * 2)
    with pytest.raises(ValueError, match="are 1 or more; got 3, 0, 1"):
        nn.GRU(3, 0)
