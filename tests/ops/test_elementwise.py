"""Elementwise operations: gradients, parity, broadcasting, dtypes, ties and edges."""

import math

import numpy as np
import pytest
from devices import beside
from hypothesis import given
from hypothesis import strategies as st

import minilm
from minilm import ops

POSITIVE = np.random.default_rng(1).uniform(0.3, 3, (3, 4))
APART = np.random.default_rng(2).permutation(12).reshape(3, 4) / 3 - 1.9  # no two alike, none at a kink


def _torch(name):
    """The function of torch with this name, looked up when it is called."""

    def call(*args):
        import torch

        return getattr(torch, name)(*args)

    return call


CASES = {
    "add": (lambda a, b: a + b, [(3, 4), (3, 4)], lambda a, b: a + b),
    "add, broadcast": (lambda a, b: a + b, [(2, 1, 4), (3, 1)], lambda a, b: a + b),
    "add, one without axes": (lambda a, b: a + b, [(2, 3), ()], lambda a, b: a + b),
    "add, both without axes": (lambda a, b: a + b, [(), ()], lambda a, b: a + b),
    "add, empty": (lambda a, b: a + b, [(0, 3), (3,)], lambda a, b: a + b),
    "a + a": (lambda a: a + a, [(3,)], lambda a: a + a),
    "subtract": (lambda a, b: a - b, [(3, 1), (4,)], lambda a, b: a - b),
    "multiply": (lambda a, b: a * b, [(3, 4), (1, 4)], lambda a, b: a * b),
    "multiply, length 1": (lambda a, b: a * b, [(1,), (1,)], lambda a, b: a * b),
    "divide": (lambda a, b: a / b, [(3, 4), POSITIVE], lambda a, b: a / b),
    "divide, by a broadcast row": (lambda a, b: a / b, [(2, 3, 4), POSITIVE[:1]], lambda a, b: a / b),
    "numbers": (lambda a: 2 - (3 * a + 1) / 4 - a * 0.5, [(3,)], lambda a: 2 - (3 * a + 1) / 4 - a * 0.5),
    "number / a": (lambda a: 2 / a, [POSITIVE], lambda a: 2 / a),
    "array + a": (lambda a: beside(a, np.arange(3.0).astype(a.dtype)) + a, [(2, 3)], None),
    "negative": (lambda a: -a, [(3, 4)], lambda a: -a),
    "power": (lambda a, b: a**b, [POSITIVE, (3, 4)], lambda a, b: a**b),
    "power, broadcast": (lambda a, b: a**b, [POSITIVE[:1], (3, 1)], lambda a, b: a**b),
    "a ** 3": (lambda a: ops.power(a, 3), [(3, 4)], lambda a: a**3),
    "a ** 1": (lambda a: a**1, [(3, 4)], None),
    "a ** -0.5": (lambda a: a**-0.5, [POSITIVE], lambda a: a**-0.5),
    "2 ** a": (lambda a: 2.0**a, [(3, 4)], lambda a: 2.0**a),
    "array ** a": (lambda a: ops.power(beside(a, np.array([1.5, 2.0]).astype(a.dtype)), a), [(3, 2)], None),
    "a ** array": (lambda a: a ** beside(a, np.array([0, 1, 2, 3])), [POSITIVE], None),
    "abs": (abs, [APART], _torch("abs")),
    "square": (ops.square, [(3, 4)], _torch("square")),
    "sqrt": (ops.sqrt, [POSITIVE], _torch("sqrt")),
    "exp": (ops.exp, [(3, 4)], _torch("exp")),
    "exp, empty": (ops.exp, [(0,)], _torch("exp")),
    "exp, without axes": (ops.exp, [()], _torch("exp")),
    "log": (ops.log, [POSITIVE], _torch("log")),
    "log1p": (ops.log1p, [POSITIVE], _torch("log1p")),
    "sin": (ops.sin, [(3, 4)], _torch("sin")),
    "cos": (ops.cos, [(3, 4)], _torch("cos")),
    "tanh": (ops.tanh, [(3, 4)], _torch("tanh")),
    "erf": (ops.erf, [(3, 4)], _torch("erf")),
    "maximum": (ops.maximum, [APART, APART[:, ::-1].copy()], _torch("maximum")),
    "maximum, broadcast": (ops.maximum, [APART, APART[0] + 0.1], _torch("maximum")),
    "maximum with a number": (lambda a: ops.maximum(a, 0.5), [APART], None),
    "minimum": (ops.minimum, [APART, APART[:, ::-1].copy()], _torch("minimum")),
    "minimum, of a number": (lambda a: ops.minimum(0.5, a), [APART], None),
    "clip": (lambda a: ops.clip(a, -1, 1), [APART], lambda a: a.clip(-1, 1)),
    "clip from below": (lambda a: ops.clip(a, min=0), [APART], lambda a: a.clip(min=0)),
    "clip from above": (lambda a: ops.clip(a, None, 0.5), [APART], lambda a: a.clip(max=0.5)),
    "clip, no bound": (lambda a: ops.clip(a), [APART], None),
    "clip by arrays": (lambda a: ops.clip(a, beside(a, -APART[0] - 2), beside(a, APART[1] + 2)), [APART], None),
    "where": (lambda a, b: ops.where(beside(a, APART > 0), a, b), [(3, 4), (3, 4)], None),
    "where, broadcast": (lambda a, b: ops.where(beside(a, APART > 0), a, b), [(4,), (3, 1)], None),
    "where, a number": (lambda a: ops.where(beside(a, APART > 0), a, 0.0), [(3, 4)], None),
    "where, condition broadcast": (lambda a, b: ops.where(beside(a, APART[:, :1] > 0), a, b), [(2, 3, 4), ()], None),
}


@pytest.mark.parametrize("name", CASES)
def test_operation(name, check):
    check(*CASES[name])


def test_sign_has_gradient_zero(device):
    x = minilm.tensor([-2.0, 0.0, 3.0], requires_grad=True, device=device)
    y = ops.sign(x)
    y.backward([1.0, 1.0, 1.0])
    assert y.tolist() == [-1, 0, 1]
    assert x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("function", [ops.maximum, ops.minimum])
def test_a_tie_shares_the_gradient(function, device):
    a, b = (minilm.tensor([1.0, 2.0], requires_grad=True, device=device) for _ in range(2))
    function(a, b).sum().backward()
    assert a.grad.tolist() == b.grad.tolist() == [0.5, 0.5]


def test_abs_and_powers_at_zero(device):
    x = minilm.tensor([0.0], requires_grad=True, device=device)
    assert minilm.grad(abs(x), x)[0].tolist() == [0]
    assert minilm.grad(x**0, x)[0].tolist() == [0]
    assert minilm.grad(x ** beside(x, np.array([0.0], np.float32)), x)[0].tolist() == [0]
    exponent = minilm.tensor([2.0], requires_grad=True, device=device)
    assert minilm.grad(x**exponent, [x, exponent])[1].tolist() == [0]  # d 0**b / db, the limit at b > 0


DTYPES = ["float16", "bfloat16", "float32", "float64"]
KEEPING = {
    "x + 1": lambda x: x + 1,
    "1.5 - x": lambda x: 1.5 - x,
    "x * 0.1": lambda x: x * 0.1,
    "x / 3": lambda x: x / 3,
    "x ** 0.5": lambda x: x**0.5,
    "2.0 ** x": lambda x: 2.0**x,
    "x * numpy.float64": lambda x: x * np.float64(2),
    "x * numpy.sqrt(8)": lambda x: x * np.sqrt(8),
    "maximum(x, 0.3)": lambda x: ops.maximum(x, 0.3),
    "where(c, x, 0.1)": lambda x: ops.where(x > 1, x, 0.1),
    "clip(x, 0.1, 1.1)": lambda x: ops.clip(x, 0.1, 1.1),
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "softplus": ops.softplus,
    "relu": ops.relu,
    "erf": ops.erf,
    "tanh(exp)": lambda x: ops.tanh(ops.exp(x)),
    "sum": ops.sum,
    "mean": lambda x: ops.mean(x, 0),
    "var": ops.var,
    "logsumexp": ops.logsumexp,
    "log_softmax": ops.log_softmax,
    "cumsum": lambda x: ops.cumsum(x, 0),
    "prod": ops.prod,
    "max": ops.max,
    "matmul": lambda x: x @ x,
    "matmul of batches": lambda x: x[None] @ x[None].swapaxes(1, 2),
    "einsum": lambda x: ops.einsum("ij,jk->ik", x, x),
    "linear": lambda x: ops.linear(x, x, x[0]),
    "layer_norm": lambda x: ops.layer_norm(x, x[0], x[1]),
    "softmax": ops.softmax,
    "gelu": ops.gelu,
    "swiglu": lambda x: ops.swiglu(x, x),
    "dropout": lambda x: ops.dropout(x, 0.5, generator=minilm.backend.Generator(0)),
    "attention": lambda x: ops.scaled_dot_product_attention(x, x, x, causal=True),
    "embedding": lambda x: ops.embedding([1, 1, 0], x),
    "scatter_add": lambda x: ops.scatter_add(x, [[0], [1]], 2.0),
    "topk": lambda x: ops.topk(x, 1)[0],
    "sort": ops.sort,
    "concatenate": lambda x: ops.concatenate([x, x]),
    "pad": lambda x: ops.pad(x, 1, 0.5),
    "x[0] + x[[0, 0]]": lambda x: x[0] + x[[0, 0]],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KEEPING)
def test_dtype_is_kept_forward_and_backward(name, dtype, device):
    x = minilm.tensor([[1.0, 2.0], [0.5, 1.25]], dtype=dtype, requires_grad=True, device=device)
    y = KEEPING[name](x)
    assert y.dtype.name == dtype
    y.sum().backward()
    assert x.grad.dtype.name == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loss_of_16_bits_is_float32_and_its_gradient_is_not(dtype, device):
    x = minilm.tensor([[1.0, 2.0], [0.5, 1.25]], dtype=dtype, requires_grad=True, device=device)
    loss = ops.cross_entropy(x, [0, 1])
    assert loss.dtype.name == ("float64" if dtype == "float64" else "float32")
    loss.backward()
    assert x.grad.dtype.name == dtype


@pytest.mark.parametrize("count", [np.int64(4), np.array(4), minilm.tensor(4), minilm.tensor([4, 4])])
def test_integers_beside_floats_make_no_float64(count):
    x = minilm.tensor([1.0, 2.0], requires_grad=True)
    for y in (x / count, x * count, x + count, count - x, ops.maximum(x, count), x**count):
        assert y.dtype == np.float32
    np.testing.assert_allclose((x / count).numpy(), [0.25, 0.5])
    assert (x.to("float64") / count).dtype == np.float64


def test_an_array_may_stand_left_of_an_operator():
    left = np.array([1.0, 2.0], np.float32)
    x = minilm.tensor([3.0, 5.0], requires_grad=True)
    for y, expected in [
        (left + x, [4, 7]),
        (left - x, [-2, -3]),
        (left * x, [3, 10]),
        (left**x, [1, 32]),
        (np.float32(2) * x, [6, 10]),
        ([1, 2] + x, [4, 7]),  # noqa: RUF005
        (left @ x, 13),
    ]:
        assert isinstance(y, minilm.Tensor)
        assert y.requires_grad
        assert y.tolist() == expected
    for y, expected in [
        (left < x, [True, True]),
        (left >= x, [False, False]),
        (left == x, [False, False]),
        ((left > 1) ^ (x > 4), [False, False]),
        ((left > 1) & (x > 4), [False, True]),
    ]:
        assert isinstance(y, minilm.Tensor)
        assert y.tolist() == expected


def test_numpys_functions_say_which_ones_take_tensors():
    x, array = minilm.tensor([3.0, 5.0], requires_grad=True), np.ones(2, np.float32)
    with pytest.raises(TypeError, match=r"np\.exp takes arrays only; use minilm\.ops\.exp, or the tensor's \.data"):
        np.exp(x)
    with pytest.raises(TypeError, match=r"np\.maximum takes arrays only; use minilm\.ops\.maximum"):
        np.maximum(array, x)
    with pytest.raises(TypeError, match=r"np\.add\.reduce takes arrays only; use a function of minilm\.ops"):
        np.add.reduce(x)
    for lost in (lambda: np.concatenate([array, x]), lambda: np.where(array > 0, x, 0), lambda: np.sum(x)):
        with pytest.raises(TypeError, match=r"np\.\w+ would lose the gradient; use minilm\.ops\.(conc|where|sum)"):
            lost()
    with minilm.no_grad():
        assert np.concatenate([array, x]).tolist() == [1, 1, 3, 5]
    assert np.concatenate([array, x.detach()]).tolist() == [1, 1, 3, 5]
    assert np.shape(x) == (2,)
    assert np.allclose(x, [3, 5])
    y = x.detach()
    for function in (
        np.sum,
        np.mean,
        np.max,
        np.prod,
        np.cumsum,
        np.linalg.norm,
    ):  # some would call the tensor's method
        np.testing.assert_array_equal(function(y), function(y.data))
    np.testing.assert_array_equal(np.stack((y, y)), [[3, 5], [3, 5]])
    with pytest.raises(TypeError, match=r"a = a \+ t"):
        array += x
    assert x.__array_ufunc__ is None  # what CuPy asks, to leave an operator to the tensor


def test_a_rule_sees_a_list_as_the_forward_saw_it(device):
    x = minilm.tensor([1.0, 2.0], requires_grad=True, device=device)
    (x * [3.0, 4.0] + ops.maximum(x, [0.0, 9.0])).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [4, 4]


def test_numpys_numbers_keep_their_dtype_where_no_array_of_floats_has_one():
    number, wide = np.float64(1.1), np.float64(2.2)
    for y in (
        ops.exp(number),
        ops.add(number, wide),
        ops.where(np.array([True]), number, wide),
        ops.where(True, number, 0.0),
    ):
        assert y.dtype == np.float64
    assert ops.add(number, wide) == 1.1 + 2.2
    assert ops.where(np.array([True]), number, np.ones(1, np.float32)).dtype == np.float32  # there it is a number
    assert ops.where(np.array([True]), 0.5, np.ones(1, "bfloat16")).dtype == "bfloat16"


@pytest.mark.parametrize("name", ["erf", "logsumexp", "power"])
def test_gradients_of_a_number_in_float64_are_exact(name):
    x = minilm.tensor(np.array(1.1), requires_grad=True)
    (dx,) = minilm.grad(getattr(ops, name)(x, *[x] * (name == "power")), x)
    exact = {"erf": 2 / math.pi**0.5 * math.exp(-1.21), "logsumexp": 1.0, "power": 1.1**1.1 * (1 + math.log(1.1))}[name]
    assert abs(dx.item() - exact) < 1e-15


def test_where_with_a_tensor_for_a_condition_gives_a_tensor(device):
    condition = minilm.tensor([True, False], device=device)
    y = ops.where(condition, 1.0, 0.0)
    assert isinstance(y, minilm.Tensor)
    assert y.dtype == np.float32
    x = minilm.tensor([1.0, 2.0], requires_grad=True, device=device)
    y = ops.where(condition, x, 0.0)
    condition[0] = False
    with pytest.raises(RuntimeError, match=r"'condition'.*changed in place"):
        y.sum().backward()


def test_a_setting_that_requires_a_gradient_is_refused():
    x, low = (minilm.tensor([1.0], requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match=r"clip gives no gradient to 'min'.*min\.detach\(\)"):
        ops.clip(x, low)
    assert ops.clip(x, low.detach()).tolist() == [1]


def test_clip_of_integers():
    assert ops.clip(np.array([1, 5]), 2, 3).tolist() == [2, 3]
    assert ops.clip(np.array([1, 5]), 1.5, None).tolist() == [1.5, 5]


def test_shapes_that_do_not_broadcast_are_an_error(device):
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        minilm.tensor([1.0, 2.0], device=device) + minilm.tensor([1.0, 2.0, 3.0], device=device)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=4), st.integers(0, 4))
def test_broadcasting_is_undone_for_any_pair_of_shapes(axes, skipped):
    """Each axis has a length, and either input may have 1 there, or lack the first axes."""
    whole = tuple(n for n, _, _ in axes)
    left = tuple(1 if one else n for n, one, _ in axes)
    right = tuple(1 if one else n for n, _, one in axes)[skipped:]
    a = minilm.tensor(np.full(left, 2.0), requires_grad=True)
    b = minilm.tensor(np.full(right, 3.0), requires_grad=True)
    y = a * b
    y.sum().backward()
    assert a.grad.shape == left
    assert b.grad.shape == right
    assert len(y.shape) == len(whole)
    if a.size:
        np.testing.assert_allclose(a.grad.numpy(), 3.0 * y.size / a.size)
    if b.size:
        np.testing.assert_allclose(b.grad.numpy(), 2.0 * y.size / b.size)


def test_erf_of_integers_is_no_integer(device):
    y = minilm.tensor([0, 1], device=device).erf()
    assert y.dtype == np.float64
    np.testing.assert_allclose(y.numpy(), [0, math.erf(1)], rtol=1e-15)


def test_erf_is_exact():
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(ops.erf(x), [math.erf(v) for v in x], rtol=1e-15)
    assert ops.erf(np.zeros((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("x", [np.ones(2, np.float32), minilm.tensor([1.0, 2.0])], ids=["array", "tensor"])
def test_astype_knows_every_dtype_of_the_library(x):
    assert ops.astype(x, "bfloat16").dtype.name == "bfloat16"
    assert x.astype("int64").dtype == np.int64
    with pytest.raises(TypeError, match="float33"):
        ops.astype(x, "float33")
