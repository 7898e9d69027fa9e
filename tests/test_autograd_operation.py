"""The operation idiom: custom operations, what rules may ask for, how arguments bind, and what is refused."""

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import Tensor, ops
from minilm.autograd import Array, Placed, gradcheck, gradgradcheck, op


@op
def cube(x: Array):
    """x * x * x"""
    return x * x * x


@cube.gradient
def _(g, x):
    return 3 * g * x * x


@op(keeps=("root",))
def scaled_root(x: Array, weight: Array = None, scale=2.0):
    """scale * sqrt(x) * weight, keeping the root."""
    root = x**0.5
    y = scale * root
    return (y if weight is None else y * weight), root


@scaled_root.gradient("x")
def _(g, root, weight, scale):
    return g * scale / (2 * root) * (1 if weight is None else weight)


@scaled_root.gradient("weight")
def _(g, root, scale):
    return g * scale * root


@scaled_root.composition
def _(x, weight, scale):
    y = ops.sqrt(x) * scale
    return y if weight is None else y * weight


@op
def halves(x: Array, axis=0):
    """The two halves of x."""
    return tuple(np.split(x, 2, axis))


@halves.gradient
def _(g, axis):
    first, second = g
    return ops.concatenate([first, second], axis)


@op
def total(*arrays: Array, weight=1.0):
    """The weighted sum of all arrays."""
    return weight * sum(arrays[1:], arrays[0])


@total.gradient
def _(g, arrays_shape, weight, needs):
    return tuple(g * weight if need else None for need in needs)


def test_a_custom_operation_is_like_ours(device):
    assert gradcheck(cube, leaf([1.0, -2.0]))
    assert gradgradcheck(cube, leaf([1.0, -2.0]))
    assert cube(np.array([2.0])).tolist() == [8]
    assert isinstance(cube(minilm.tensor([2.0], device=device)), Tensor)
    assert cube.__doc__ == "x * x * x"
    assert repr(cube).startswith("<operation cube(x")


def test_keeps_settings_and_optional_inputs():
    x, w = leaf([1.0, 4.0]), leaf([3.0, 0.5])
    for call in (lambda x, w: scaled_root(x, w), lambda x, w: scaled_root(weight=w, scale=0.5, x=x)):
        assert gradcheck(call, [x, w])
        assert gradgradcheck(call, [x, w])
    assert gradcheck(scaled_root, x)
    assert scaled_root(np.array([4.0])).tolist() == [4]  # what is kept is not returned
    y = scaled_root(x)
    assert set(y._node.kept) >= {"root"}


def test_several_outputs():
    assert gradcheck(halves, leaf(np.arange(6.0)))
    assert gradgradcheck(lambda x: halves(x * x, axis=1), leaf(np.arange(8.0).reshape(2, 4)))
    x = leaf([1.0, 2.0])
    first, _second = halves(x)
    (first * 3).sum().backward()  # the other half's gradient is zero
    assert x.grad.tolist() == [3, 0]


def test_a_variadic_operation():
    a, b, c = leaf([1.0, 2.0]), leaf([1.0]), minilm.tensor([1.0, 1.0], dtype="float64")
    assert gradcheck(lambda a, b: total(a, b, c, weight=3.0), [a, b])
    total(a, c, a).sum().backward()
    assert a.grad.tolist() == [2, 2]
    assert c.grad is None


def test_broadcasting_and_dtypes_are_the_engines_business(device):
    @op
    def stretch(x: Array, shape):
        return np.broadcast_to(x, shape).astype(np.float64)

    @stretch.gradient
    def _(g):
        return g

    x = minilm.tensor([[1.0], [2.0]], requires_grad=True, device=device)
    stretch(x, (3, 2, 4)).sum().backward()
    assert x.grad.tolist() == [[12], [12]]
    assert x.grad.dtype == np.float32


def test_a_gradient_may_be_placed(device):
    @op
    def first_row(x: Array):
        return x[0]

    @first_row.gradient
    def _(g, x_shape):
        return Placed(g, 0, x_shape)

    x = minilm.tensor(np.ones((3, 2), np.float32), requires_grad=True, device=device)
    (first_row(x) * 2 + x.sum(0)).sum().backward()
    assert x.grad.tolist() == [[3, 3], [1, 1], [1, 1]]
    x.zero_grad()
    first_row(x).to("float64").sum().backward()
    assert x.grad.dtype == np.float32


def test_a_tied_weight_takes_placed_and_dense_gradients_in_any_order(rng):
    w = leaf(rng.standard_normal((4, 3)))
    for order in (0, 1):

        def tied(w, order=order):
            parts = [ops.embedding([1, 1, 3], w), w[[0, 1, 1]] @ w.T @ w]
            return parts[order] * 2 + parts[1 - order]

        assert gradcheck(tied, w)
        assert gradgradcheck(tied, w)


def test_a_placed_gradient_does_not_write_into_a_shared_array():
    """The gradient that comes first may be an array that others see: the seed, say."""
    x = leaf([1.0, 2.0])
    other = leaf([0.0, 0.0])
    y = x + other
    z = ops.concatenate([y, x[:1]])
    z.backward([1.0, 1.0, 10.0])
    assert x.grad.tolist() == [11, 1]
    assert other.grad.tolist() == [1, 1]


# What is refused.


def test_complex_numbers_do_not_lose_a_gradient_in_silence():
    with pytest.raises(TypeError, match="multiply made complex numbers, which have no gradient here: complex64"):
        leaf([1.0], "float32") * 1j
    assert (minilm.tensor([1.0]) * 1j).tolist() == [1j]


def test_an_operation_without_a_rule():
    @op
    def rounded(x: Array):
        return np.round(x)

    y = rounded(leaf([1.2]))
    assert y.tolist() == [1]
    with pytest.raises(RuntimeError, match="rounded has no gradient; use it on detached tensors, or give it a rule"):
        y.backward()


def test_an_input_without_a_rule_is_no_zero():
    @op
    def product(a: Array, b: Array):
        return a * b

    @product.gradient("a")
    def _(g, b):
        return g * b

    a, b = leaf([1.0]), leaf([2.0])
    assert minilm.grad(product(a, b.detach()), a)[0].tolist() == [2]
    with pytest.raises(RuntimeError, match="product has no gradient rule for its input 'b'"):
        product(a, b).backward()


def _with_rule(rule):
    @op
    def faulty(x: Array, scale=1.0):
        return x * scale

    faulty.gradient(rule)
    return faulty


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (
            lambda g: g[:1],
            ValueError,
            r"rule of faulty returned shape \(1,\) for its input 'x', which has shape \(3,\)",
        ),
        (lambda g: g.reshape(3, 1), ValueError, r"returned shape \(3, 1\)"),
        (lambda g: (g, g), ValueError, "returned 2 gradients for 1 inputs"),
        (lambda g: 1.0, TypeError, r"rule of faulty returned a float for an input of shape \(3,\)"),
        (lambda g: g.astype(int), TypeError, "rule of faulty returned int64 for an input of float64"),
    ],
)
def test_a_rule_that_returns_something_wrong_is_named(rule, error, message):
    with pytest.raises(error, match=message):
        _with_rule(rule)(leaf([1.0, 2.0, 3.0])).sum().backward()


def test_an_operation_that_is_written_wrongly_is_told_how_to_write_it():
    with pytest.raises(ValueError, match=r"no parameter of plain is annotated.*def plain\(x: Array\)"):

        @op
        def plain(x):
            return x

    with pytest.raises(ValueError, match="an input of product is named 'y', which in a gradient rule means the output"):

        @op
        def product(x: Array, y: Array):
            return x * y

    @op
    def scaled(x: Array, weight):
        return x * weight

    with pytest.raises(ValueError, match=r"gives no gradient to 'weight'.* annotated `: Array`"):
        scaled(leaf([1.0]), leaf([2.0]))

    @op
    def listed(x: Array):
        return x.tolist()

    with pytest.raises(TypeError, match="returns an array, or a tuple of arrays; got a list"):
        listed(leaf([1.0]))


def test_array_may_be_named_with_its_module_and_as_text():
    @op
    def doubled(x: "minilm.autograd.Array"):
        return 2 * x

    assert doubled.inputs == ("x",)


def test_a_rule_may_say_that_there_is_no_gradient():
    x = leaf([1.0])
    (_with_rule(lambda g: None)(x) + x).backward()
    assert x.grad.tolist() == [1]


def test_a_rule_can_only_ask_for_what_there_is():
    with pytest.raises(ValueError, match=r"rule of faulty asks for 'mask'; it can ask for \['needs', 'scale', 'x'"):
        _with_rule(lambda g, mask: g)
    with pytest.raises(ValueError, match="cube has no differentiable input 'z'; it has x"):
        cube.gradient("z")


def test_second_order_needs_a_composition_where_values_were_kept():
    @op(keeps=("root",))
    def root_of(x: Array):
        root = x**0.5
        return root * 1.0, root

    @root_of.gradient
    def _(g, root):
        return g / (2 * root)

    x = leaf([4.0])
    assert minilm.grad(root_of(x), x)[0].tolist() == [0.25]
    with pytest.raises(RuntimeError, match="root_of has no composition, so its gradient can't be differentiated"):
        minilm.grad(root_of(x), x, create_graph=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.sum(x, axes=0), "sum has no argument 'axes'; it has x, axis, keepdims"),
        (lambda x: ops.sum(x, 0, axis=0), "sum got 'axis' twice"),
        (lambda x: ops.sum(axis=0), "sum needs 'x'"),
        (lambda x: ops.sum(x, 0, False, 1), "sum takes 3 arguments, got 4"),
    ],
)
def test_arguments_that_do_not_bind(call, message, device):
    with pytest.raises(TypeError, match=message):
        call(minilm.tensor([1.0], device=device))


def test_a_rule_that_computes_with_constants_works_while_a_graph_is_made():
    @op
    def shifted(x: Array):
        return x + 1

    @shifted.gradient
    def _(g):
        return np.ones(2)

    x = leaf([1.0, 2.0])
    (g,) = minilm.grad((shifted(x) * 1.0).sum(), x, create_graph=True)
    assert g.tolist() == [1, 1]
