"""gradcheck and gradgradcheck: they pass what is right, and say of what is wrong where and by how much."""

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import Tensor, ops
from minilm.autograd import Array, GradientError, gradcheck, gradgradcheck, op


def _with_rule(rule):
    @op
    def square(x: Array):
        return x * x

    square.gradient(rule)
    return square


def test_the_message_says_where_and_by_how_much():
    def rule(g, x):
        right = 2 * g * x
        right[1, 0] *= 1.5
        return right

    with pytest.raises(GradientError) as caught:
        gradcheck(_with_rule(rule), leaf([[1.0, 2.0], [3.0, 4.0]]))
    message = str(caught.value)
    assert "the gradient of square for input 0 is wrong at 1 of 4 elements" in message
    assert "Worst at index (1, 0): computed" in message
    numbers = message.split("computed ")[1].split(" (off by ")[0].split(", by finite differences ")
    assert float(numbers[0]) == pytest.approx(1.5 * float(numbers[1]), rel=1e-4)
    assert "allowed" in message
    assert "forgotten scale" in message


def test_a_constant_factor_is_found():
    with pytest.raises(GradientError, match="wrong at 3 of 3 elements"):
        gradcheck(_with_rule(lambda g, x: g * x), leaf([1.0, 2.0, 3.0]))


def test_nan_is_wrong():
    with pytest.raises(GradientError, match="computed nan"):
        gradcheck(_with_rule(lambda g, x: g * np.nan), leaf([1.0]))


def test_a_gradient_that_is_missing_is_wrong():
    with pytest.raises(GradientError, match="input 1"):
        gradcheck(lambda a, b: a * b.detach() if a.data[0] == 2 else a * b.data, [leaf([2.0]), leaf([3.0])])


def test_the_second_derivative_is_checked_apart_from_the_first():
    def rule(g, x):
        if isinstance(g, Tensor):  # right in value, and with no history
            return 2 * g * x.detach()
        return 2 * g * x

    square = _with_rule(rule)
    assert gradcheck(square, leaf([1.0, 2.0]))
    with pytest.raises(GradientError):
        gradgradcheck(square, leaf([1.0, 2.0]))


def test_a_composition_that_is_another_function_is_found():
    @op
    def double(x: Array):
        return 2 * x

    @double.gradient
    def _(g):
        return 2 * g

    @double.composition
    def _(x):
        return 3.0 * x

    with pytest.raises(GradientError, match="'double' for input 0 is another one with create_graph=True, off by up to"):
        gradgradcheck(double, leaf([1.0, 2.0]))


def test_a_gradient_without_history_is_found():
    def rule(g, x):
        return Tensor(2 * g.data * x.data) if isinstance(g, Tensor) else 2 * g * x

    with pytest.raises(GradientError, match="create_graph=True"):
        gradgradcheck(_with_rule(rule), leaf([1.0, 2.0]))


def test_inputs_that_require_no_gradient_are_not_checked():
    constant = minilm.tensor([2.0], dtype="float64")
    assert gradcheck(lambda a, b: a * b, [leaf([1.0]), constant])
    assert gradgradcheck(lambda a, b: a * b, [constant, leaf([1.0])])


def test_several_outputs_and_none_that_matter():
    assert gradcheck(lambda x: (x * 2, ops.exp(x), x > 0), leaf([1.0, 2.0]))
    with pytest.raises(ValueError, match="no output that requires a gradient"):
        gradcheck(lambda x: x.detach(), leaf([1.0]))


def test_empty_inputs_pass():
    assert gradcheck(lambda x: x * 2, leaf(np.zeros((0, 3))))


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(TypeError, match=r"input 0 is float32; use .to"):
        gradcheck(ops.exp, minilm.tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="needs an input that requires a gradient"):
        gradcheck(ops.exp, minilm.tensor([1.0], dtype="float64"))
    with pytest.raises(TypeError, match="output 0 float32 from float64 inputs"):
        gradcheck(lambda x: x.to("float32"), leaf([1.0]))


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_a_call_that_is_written_otherwise_is_told_how(check):
    x, name = leaf([1.0]), check.__name__
    with pytest.raises(TypeError, match=rf"in one list and settings by name: {name}\(function, \[a, b\], eps=1e-6\)"):
        check(lambda a, b: a * b, x, x)
    with pytest.raises(TypeError, match=f"{name} takes a function and then its inputs; a Tensor came first"):
        check(x, ops.exp)
    for wrong in (np.ones(2), 1.0, None):
        with pytest.raises(
            TypeError, match=rf"{name} got a {type(wrong).__name__}; .*: minilm\.tensor\(x, dtype='float64'"
        ):
            check(ops.exp, wrong)
    for without in ([], [np.ones(2)], x.detach()):
        with pytest.raises(ValueError, match=rf"{name} needs an input that requires a gradient: minilm\.tensor\("):
            check(ops.exp, without)


def test_it_leaves_the_inputs_alone():
    x = leaf([1.0, 2.0])
    gradcheck(ops.exp, x)
    gradgradcheck(ops.exp, x)
    assert x.tolist() == [1, 2]
    assert x.grad is None
