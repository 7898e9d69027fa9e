"""Rotary embedding: gradients of both orders, its tables, and parity with the usual way to write it."""

import numpy as np
import pytest
from devices import beside

import minilm
from minilm import ops


def _turn(length, dim, interleaved=False, positions=None):
    """The operation on inputs of any dtype, with tables of theirs."""

    def call(x):
        settings = {"length": length} if positions is None else {"positions": positions}
        cos, sin = (beside(x, table) for table in ops.rotary_tables(dim=dim, dtype=x.dtype, **settings))
        return ops.rotary_embedding(x, cos, sin, interleaved)

    return call


def _oracle(length, dim):
    """rotate_half, as in LLaMA's model code."""

    def call(x):
        import torch

        frequencies = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        angles = torch.cat((angles, angles), -1)
        turned, rest = x[..., :dim], x[..., dim:]
        half = torch.cat((-turned[..., dim // 2 :], turned[..., : dim // 2]), -1)
        return torch.cat((turned * angles.cos() + half * angles.sin(), rest), -1)

    return call


CASES = {
    "plain": (_turn(3, 4), [(2, 2, 3, 4)], _oracle(3, 4)),
    "some features": (_turn(2, 4), [(1, 2, 2, 7)], _oracle(2, 4)),
    "interleaved": (_turn(3, 4, True), [(2, 1, 3, 6)], None),
    "positions of each row": (_turn(2, 4, positions=[[0, 1], [5, 9]]), [(2, 2, 2, 4)], None),
    "no features": (_turn(2, 0), [(1, 1, 2, 3)], lambda x: x),
    "no rows": (_turn(3, 4), [(0, 2, 3, 4)], None),
    "length 1": (_turn(1, 2), [(1, 1, 1, 2)], None),
}


@pytest.mark.parametrize("name", CASES)
def test_operation(name, check):
    check(*CASES[name])


def test_of_split_heads_nothing_is_copied(rng):
    x = minilm.tensor(rng.standard_normal((2, 3, 8)).astype(np.float32), requires_grad=True)
    q = ops.split_heads(x, 2)
    y = ops.rotary_embedding(q, *ops.rotary_tables(3, 4))
    assert y.data.swapaxes(1, 2).flags.c_contiguous
    ops.join_heads(y).sum().backward()
    assert x.grad.shape == (2, 3, 8)


def test_scores_depend_on_the_distance_alone(rng):
    q, k = rng.standard_normal((2, 1, 1, 1, 8))
    turned = lambda x, position: ops.rotary_embedding(x, *ops.rotary_tables(1, 8, offset=position, dtype="float64"))
    near = (turned(q, 3) * turned(k, 1)).sum()
    far = (turned(q, 70003) * turned(k, 70001)).sum()
    assert near == pytest.approx(far, abs=1e-9)


def test_tables():
    cos, sin = ops.rotary_tables(4, 6, base=100.0, offset=7)
    assert cos.dtype == sin.dtype == np.float32
    angles = np.arange(7, 11)[:, None] * 100.0 ** -(np.arange(3) / 3)
    np.testing.assert_allclose(cos, np.cos(angles), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=1e-6, atol=1e-7)
    rows = ops.rotary_tables(dim=6, base=100.0, positions=minilm.tensor(np.array([[7, 8], [9, 10]])))
    np.testing.assert_array_equal(rows[0].reshape(4, 3), cos)
    np.testing.assert_array_equal(rows[1].reshape(4, 3), sin)


REFUSED = {
    "odd": (lambda: ops.rotary_tables(3, 5), "dim is 5; expected an even number"),
    "neither": (lambda: ops.rotary_tables(dim=4), "a length .* or positions; give one of them"),
    "both": (lambda: ops.rotary_tables(3, 4, positions=[0, 1, 2]), "give one of them"),
    "offset": (lambda: ops.rotary_tables(dim=4, positions=[0], offset=2), "offset is 2; it goes with a length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
