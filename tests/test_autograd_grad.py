"""`minilm.grad`: of what, with respect to what, and derivatives of derivatives."""

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import ops
from minilm.autograd import engine


def test_grad_leaves_the_leaves_alone():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    dx, dy = minilm.grad((x * y).sum(), [x, y])
    assert dx.tolist() == [3, 4]
    assert dy.tolist() == [1, 2]
    assert x.grad is None
    assert not dx.requires_grad


def test_grad_of_several_outputs_with_weights():
    x = leaf([1.0, 2.0])
    (g,) = minilm.grad([x * x, 3 * x, x.sum()], x, [minilm.tensor([1.0, 1.0]), np.array([1.0, 10.0]), None])
    assert g.tolist() == [2 + 3 + 1, 4 + 30 + 1]
    with pytest.raises(ValueError, match="1 outputs and 2 grad_outputs"):
        minilm.grad(x.sum(), x, [1.0, 1.0])


def test_grad_with_respect_to_what_was_computed():
    x = leaf([1.0, 2.0])
    y = x * x
    z = ops.exp(y)
    loss = (z * y).sum()
    dy, dz, dx = minilm.grad(loss, [y, z, x], retain_graph=True)
    np.testing.assert_allclose(dz.numpy(), y.numpy())
    np.testing.assert_allclose(dy.numpy(), z.numpy() + y.numpy() * z.numpy())  # through z as well
    np.testing.assert_allclose(dx.numpy(), dy.numpy() * 2 * x.numpy())
    assert minilm.grad(loss, loss)[0].item() == 1


def test_grad_of_one_of_several_outputs_of_an_operation():
    x = leaf(np.arange(6.0))
    first, second = x.split(2)
    assert minilm.grad((first * second).sum(), second)[0].tolist() == [0, 1, 2]
    first, second = x.split(2)
    assert minilm.grad((first * first).sum(), [x, second], allow_unused=True)[0].tolist() == [0, 2, 4, 0, 0, 0]


def test_grad_of_an_input_that_is_not_used(device):
    x, y = leaf([1.0]), leaf([1.0])
    assert minilm.grad(x * 2, [x, y], allow_unused=True)[1] is None
    with pytest.raises(ValueError, match=r"do not depend on input 1 of grad \(shape \(1,\)\); pass allow_unused=True"):
        minilm.grad(x * 2, [x, y])
    with pytest.raises(ValueError, match=r"input 0 of grad .* does not require a gradient"):
        minilm.grad(x * 2, minilm.tensor([1.0], device=device))


def test_grad_of_what_is_no_tensor_is_refused():
    x = leaf([1.0])
    with pytest.raises(TypeError, match=r"the outputs of grad are a Tensor or .*; got a function; call the function"):
        minilm.grad(lambda x: x * 2, x)
    for wrong, name in ((np.ones(2), "ndarray"), ([x, 2.0], "list"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"the inputs of grad are a Tensor or a list of Tensors; got a {name}"):
            minilm.grad(x * 2, wrong)


def test_higher_derivatives():
    x = leaf(2.0)
    y = x**5
    derivatives = []
    for order in range(5):
        (y,) = minilm.grad(y, x, create_graph=order < 4)
        derivatives.append(y.item())
    assert derivatives == [80, 160, 240, 240, 120]


def test_a_hessian_times_a_vector(rng):
    x, v = leaf(rng.standard_normal(4)), rng.standard_normal(4)
    matrix = rng.standard_normal((4, 4))
    y = x @ minilm.tensor(matrix) @ x
    (g,) = minilm.grad(y, x, create_graph=True)
    (hv,) = minilm.grad(g, x, v)
    np.testing.assert_allclose(hv.numpy(), (matrix + matrix.T) @ v, rtol=1e-12)


def test_backward_with_create_graph_accumulates_differentiably():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    (x**2).backward(create_graph=True)
    assert x.grad.item() == 12 + 4
    total = x.grad
    x.zero_grad()
    total.backward()
    assert x.grad.item() == 12 + 2


def test_create_graph_goes_through_a_chain_of_fused_operations_in_linear_time(monkeypatch):
    """The walk through a composition must end at its inputs, and not go on through all that is behind them."""
    visited = []
    order = engine._order
    monkeypatch.setattr(engine, "_order", lambda outputs: visited.append(len(found := order(outputs))) or found)

    def visits(length):
        visited.clear()
        x = leaf(np.ones((1, 2)))
        y = x
        for _ in range(length):
            y = ops.gelu(y)
        minilm.grad(y.sum(), x, create_graph=True)
        return sum(visited)

    assert visits(80) < 2.1 * visits(40)
