"""Operations that move elements about: gradients, parity, every form of their arguments, and what they refuse."""

import numpy as np
import pytest
from devices import beside

import minilm
from minilm import ops

CASES = {
    "reshape": (lambda x: x.reshape(4, 3), [(3, 4)], lambda x: x.reshape(4, 3)),
    "reshape, a tuple": (lambda x: x.reshape((2, -1)), [(3, 4)], lambda x: x.reshape(2, -1)),
    "reshape, to one element": (lambda x: x.reshape(1, 1), [()], lambda x: x.reshape(1, 1)),
    "reshape, to no axes": (lambda x: x.reshape(()), [(1, 1)], lambda x: x.reshape(())),
    "reshape, empty": (lambda x: x.reshape(3, 0, 2), [(0, 4)], lambda x: x.reshape(3, 0, 2)),
    "reshape of a transpose": (lambda x: x.T.reshape(-1), [(3, 4)], lambda x: x.T.reshape(-1)),
    "transpose": (lambda x: x.T * 1, [(2, 3, 4)], lambda x: x.permute(2, 1, 0)),
    "transpose, axes": (lambda x: x.transpose(1, 2, 0), [(2, 3, 4)], lambda x: x.permute(1, 2, 0)),
    "transpose, a tuple": (lambda x: ops.transpose(x, (1, -1, 0)), [(2, 3, 4)], lambda x: x.permute(1, 2, 0)),
    "permute": (lambda x: ops.permute(x, 2, 0, 1), [(2, 3, 4)], lambda x: x.permute(2, 0, 1)),
    "permute, a tuple": (lambda x: ops.permute(x, (2, 0, 1)), [(2, 3, 4)], lambda x: x.permute(2, 0, 1)),
    "swapaxes": (lambda x: x.swapaxes(0, -1), [(2, 3, 4)], lambda x: x.swapaxes(0, -1)),
    "moveaxis": (lambda x: ops.moveaxis(x, 0, -1), [(2, 3, 4)], lambda x: x.moveaxis(0, -1)),
    "moveaxis, several": (lambda x: ops.moveaxis(x, (0, 1), (2, 0)), [(2, 3, 4)], lambda x: x.moveaxis((0, 1), (2, 0))),
    "broadcast_to": (lambda x: ops.broadcast_to(x, (2, 3, 4)), [(3, 1)], lambda x: x.expand(2, 3, 4)),
    "expand": (lambda x: ops.expand(x, 2, -1, 4), [(3, 1)], lambda x: x.expand(2, -1, 4)),
    "squeeze": (ops.squeeze, [(1, 3, 1)], lambda x: x.squeeze()),
    "squeeze, axis": (lambda x: x.squeeze(-1), [(1, 3, 1)], lambda x: x.squeeze(-1)),
    "squeeze, axes": (lambda x: x.squeeze((0, 2)), [(1, 3, 1)], lambda x: x.squeeze((0, 2))),
    "expand_dims": (lambda x: ops.expand_dims(x, 1), [(2, 3)], lambda x: x.unsqueeze(1)),
    "expand_dims, several": (lambda x: ops.expand_dims(x, (0, -1)), [(2, 3)], lambda x: x[None, ..., None]),
    "unsqueeze": (lambda x: ops.unsqueeze(x, -1), [(2, 3)], lambda x: x.unsqueeze(-1)),
    "flatten": (lambda x: x.flatten(), [(2, 3, 4)], lambda x: x.flatten()),
    "flatten, some": (lambda x: ops.flatten(x, 1, -1), [(2, 3, 4)], lambda x: x.flatten(1, -1)),
    "flatten, no axes": (lambda x: x.flatten(), [()], lambda x: x.flatten()),
    "concatenate": (
        lambda a, b: ops.concatenate([a, b], -1),
        [(2, 3), (2, 1)],
        lambda a, b: _torch().cat([a, b], -1),
    ),
    "concatenate, one empty": (lambda a, b: ops.concatenate((a, b)), [(0, 3), (2, 3)], None),
    "concatenate, twice": (
        lambda a: ops.concatenate([a, a, beside(a, np.ones((1, 2)).astype(a.dtype))]),
        [(2, 2)],
        None,
    ),
    "stack": (lambda a, b: ops.stack([a, b], 1), [(2, 3), (2, 3)], lambda a, b: _torch().stack([a, b], 1)),
    "stack, last": (lambda a, b: ops.stack([a, b], -1), [(3,), (3,)], lambda a, b: _torch().stack([a, b], -1)),
    "split": (lambda x: ops.split(x, 3, 1), [(2, 6)], lambda x: x.tensor_split(3, 1)),
    "split, at places": (lambda x: ops.split(x, [1, -1], -1), [(2, 5)], lambda x: x.tensor_split([1, 4], -1)),
    "split, in one": (lambda x: ops.split(x, 1, 0), [(2, 5)], None),
    "split, part used": (lambda x: ops.split(x, 3, 1)[1], [(2, 6)], lambda x: x.tensor_split(3, 1)[1]),
    "split, empty part": (lambda x: ops.split(x, [0, 2]), [(3, 2)], lambda x: x.tensor_split([0, 2])),
    "pad": (lambda x: ops.pad(x, 1), [(2, 3)], lambda x: _pad(x, (1, 1, 1, 1))),
    "pad, a pair": (lambda x: ops.pad(x, (1, 2), 0.5), [(2, 3)], lambda x: _pad(x, (1, 2, 1, 2), value=0.5)),
    "pad, pairs": (lambda x: ops.pad(x, ((0, 1), (2, 0))), [(2, 3)], lambda x: _pad(x, (2, 0, 0, 1))),
    "pad, empty": (lambda x: ops.pad(x, ((1, 0), (0, 0))), [(0, 3)], None),
    "flip": (ops.flip, [(2, 3)], lambda x: x.flip(0, 1)),
    "flip, axis": (lambda x: ops.flip(x, -1), [(2, 3)], lambda x: x.flip(-1)),
    "flip, axes": (lambda x: ops.flip(x, (0, 2)), [(2, 3, 2)], lambda x: x.flip(0, 2)),
}


def _torch():
    import torch

    return torch


def _pad(x, widths, value=0.0):
    return _torch().nn.functional.pad(x, widths, value=value)


@pytest.mark.parametrize("name", CASES)
def test_operation(name, check):
    check(*CASES[name])


def test_lengths_may_be_numpys_integers():
    x = minilm.tensor(np.arange(6.0))
    assert x.reshape(np.int64(6)).shape == (6,)
    assert x.reshape(np.int64(2), np.int64(3)).shape == (2, 3)
    assert x.reshape([2, 3]).shape == (2, 3)
    assert len(x.split(np.int64(3))) == 3


REFUSED = {
    "squeeze a long axis": (lambda x: x.squeeze(0), ValueError, "axis 0 of shape"),
    "squeeze no axis": (lambda x: x.squeeze(5), np.exceptions.AxisError, "axis 5 is out of bounds"),
    "expand_dims far out": (lambda x: x.expand_dims(4), np.exceptions.AxisError, "axis 4 is out of bounds"),
    "flatten far out": (lambda x: x.flatten(2), np.exceptions.AxisError, "axis 2 is out of bounds"),
    "flatten backwards": (lambda x: x.flatten(1, 0), ValueError, "start_axis before end_axis"),
    "moveaxis far out": (lambda x: ops.moveaxis(x, 2, 0), np.exceptions.AxisError, "axis 2 is out of bounds"),
    "moveaxis uneven": (lambda x: ops.moveaxis(x, (0, 1), 0), ValueError, "as many destinations"),
    "expand a new axis by -1": (lambda x: x.expand(-1, 2, 3), ValueError, "can't keep"),
    "split unevenly": (lambda x: x.split(2, 1), ValueError, "axis 1 of length 3 into 2"),
    "split backwards": (lambda x: x.split([2, 1], 1), ValueError, "ascending"),
    "stack unlike": (lambda x: ops.stack([x, x.T]), ValueError, "one shape"),
    "concatenate nothing": (lambda x: ops.concatenate([]), ValueError, "at least one"),
    "reshape to a wrong size": (lambda x: x.reshape(4, 2), ValueError, "reshape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(minilm.tensor(np.ones((2, 3)), requires_grad=True))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.reshape(-1),
        lambda x: x.T,
        lambda x: x[1:],
        lambda x: x.split(2)[1],
        lambda x: x.swapaxes(0, 1),
        lambda x: x.flip(0),
        lambda x: x.detach(),
        lambda x: x.squeeze(0) if x.shape[0] == 1 else x.expand_dims(0),
        lambda x: ops.broadcast_to(x, (3, *x.shape)),
    ],
)
def test_a_view_shares_the_version_of_its_base(view):
    x = minilm.tensor(np.ones((2, 2)))
    weight = minilm.tensor(np.ones((2, 2)), requires_grad=True)
    y = weight * x
    seen = view(x)
    assert np.shares_memory(seen.data, x.data)
    x.fill_(3)
    assert seen._version is x._version
    with pytest.raises(RuntimeError, match=r"multiply kept 'b' .* changed in place"):
        y.sum().backward()


def test_integers_beside_floats_are_joined_in_the_floats_dtype():
    x, n = minilm.tensor([1.0, 2.0], requires_grad=True), np.array([3, 4])
    for y in (ops.concatenate([x, n]), ops.stack([n, x])):
        assert y.dtype == np.float32
    assert ops.concatenate([n, n]).dtype == n.dtype
    assert ops.concatenate([n, np.ones(2), np.ones(2, np.float32)]).dtype == np.float64


@pytest.mark.parametrize("call", [lambda x: x.split(1), lambda x: x.topk(1)])
def test_a_number_has_no_axis_to_cut(call):
    with pytest.raises(np.exceptions.AxisError):
        call(minilm.tensor(3.0))
