"""Dropout: the backward pass drops what the forward pass dropped, and the stream decides which."""

import numpy as np
import pytest

import minilm
from minilm import ops
from minilm.backend import Generator


@pytest.mark.parametrize("shape", [(4, 5), (0, 3), (1,), ()])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(shape, p, check):
    check(lambda x: ops.dropout(x, p, generator=Generator(1)), [shape])


def test_values_and_gradients_are_dropped_alike():
    x = minilm.tensor(np.ones(10000, np.float32), requires_grad=True)
    y = ops.dropout(x, 0.25, generator=Generator(3))
    y.backward(np.ones(10000))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert set(np.unique(y.numpy())) == {0, np.float32(1 / 0.75)}
    assert abs((y.numpy() == 0).mean() - 0.25) < 0.02


def test_the_stream_decides():
    x = np.ones((100,), np.float32)
    first = Generator(5)
    a, b = ops.dropout(x, generator=first), ops.dropout(x, generator=first)
    assert (a != b).any()
    np.testing.assert_array_equal(ops.dropout(x, generator=Generator(5)), a)
    minilm.manual_seed(7)
    c = ops.dropout(x)
    minilm.manual_seed(7)
    np.testing.assert_array_equal(ops.dropout(x), c)


def test_out_of_training_nothing_is_dropped_or_drawn():
    x = minilm.tensor([1.0, 2.0])
    stream = Generator(0)
    before = stream.state()
    assert ops.dropout(x, 0.5, training=False, generator=stream) is x
    assert stream.state() == before


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_p_out_of_range(p):
    with pytest.raises(ValueError, match=r"between 0 and 1; got"):
        ops.dropout(minilm.tensor([1.0]), p)
