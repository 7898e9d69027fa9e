"""Reductions: every form of `axis`, ties, zeros, empty and masked rows."""

import ml_dtypes
import numpy as np
import pytest

import minilm
from minilm import backend, ops

APART = np.random.default_rng(3).permutation(24).reshape(2, 3, 4) / 5.0 - 2.3
ZEROS = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 4.0], [1.5, 2.0, -1.0]])

CASES = {
    "sum": (ops.sum, [(2, 3, 4)], lambda x: x.sum()),
    "sum, axis": (lambda x: ops.sum(x, 1), [(2, 3, 4)], lambda x: x.sum(1)),
    "sum, last axis kept": (lambda x: ops.sum(x, -1, True), [(2, 3, 4)], lambda x: x.sum(-1, keepdim=True)),
    "sum, axes": (lambda x: x.sum(axis=(0, -1)), [(2, 3, 4)], lambda x: x.sum((0, -1))),
    "sum, axes kept": (lambda x: x.sum(axis=(0, -1), keepdims=True), [(2, 3, 4)], None),
    "sum, no axis at all": (lambda x: x.sum(axis=()), [(2, 3)], None),
    "sum, without axes": (ops.sum, [()], lambda x: x.sum()),
    "sum, empty": (lambda x: x.sum(0), [(0, 3)], lambda x: x.sum(0)),
    "sum of squares": (lambda x: (x * x).sum(0), [(2, 3)], lambda x: (x * x).sum(0)),
    "mean": (ops.mean, [(2, 3, 4)], lambda x: x.mean()),
    "mean, axis": (lambda x: ops.mean(x, -2, True), [(2, 3, 4)], lambda x: x.mean(-2, keepdim=True)),
    "mean, axes": (lambda x: x.mean((0, 2)), [(2, 3, 4)], lambda x: x.mean((0, 2))),
    "var": (ops.var, [(3, 4)], lambda x: x.var(correction=0)),
    "var, axis, ddof": (lambda x: ops.var(x, 1, ddof=1), [(3, 4)], lambda x: x.var(1)),
    "var, axes kept": (lambda x: ops.var(x, (0, 2), True), [(2, 3, 4)], None),
    "std": (lambda x: ops.std(x, 0), [(3, 4)], lambda x: x.std(0, correction=0)),
    "max": (ops.max, [APART], lambda x: x.amax()),
    "max, axis": (lambda x: ops.max(x, 1), [APART], lambda x: x.amax(1)),
    "max, axes": (lambda x: ops.max(x, (0, -1)), [APART], lambda x: x.amax((0, -1))),
    "max, kept": (lambda x: ops.max(x, -1, keepdims=True), [APART], lambda x: x.amax(-1, keepdim=True)),
    "max, length 1": (lambda x: ops.max(x, 0), [(1, 3)], lambda x: x.amax(0)),
    "min": (ops.min, [APART], lambda x: x.amin()),
    "min, axis": (lambda x: ops.min(x, 0), [APART], lambda x: x.amin(0)),
    "prod": (ops.prod, [(2, 3)], lambda x: x.prod()),
    "prod, axis": (lambda x: ops.prod(x, 1), [(2, 3, 2)], lambda x: x.prod(1)),
    "prod, axes kept": (lambda x: ops.prod(x, (0, 2), True), [(2, 3, 2)], None),
    "prod, with zeros": (lambda x: ops.prod(x, -1), [ZEROS], lambda x: x.prod(-1)),
    "prod, empty": (lambda x: ops.prod(x, 0), [(0, 2)], lambda x: x.prod(0)),
    "prod, without axes": (ops.prod, [()], lambda x: x.prod()),
    "cumsum": (lambda x: ops.cumsum(x, 1), [(2, 3, 4)], lambda x: x.cumsum(1)),
    "cumsum, last": (lambda x: ops.cumsum(x, -1), [(3, 4)], lambda x: x.cumsum(-1)),
    "cumsum, flattened": (ops.cumsum, [(3, 4)], lambda x: x.flatten().cumsum(0)),
    "cumsum, empty": (lambda x: ops.cumsum(x, 0), [(0, 4)], lambda x: x.cumsum(0)),
    "logsumexp": (ops.logsumexp, [(3, 4)], lambda x: x.logsumexp((0, 1))),
    "logsumexp, axis": (lambda x: ops.logsumexp(x, -1), [(2, 3, 4)], lambda x: x.logsumexp(-1)),
    "logsumexp, axes kept": (lambda x: ops.logsumexp(x, (0, 1), True), [(2, 3, 4)], None),
    "logsumexp, length 1": (lambda x: ops.logsumexp(x, 0), [(1, 3)], lambda x: x.logsumexp(0)),
    "logsumexp, no rows": (lambda x: ops.logsumexp(x, -1), [(0, 3)], lambda x: x.logsumexp(-1)),
}


@pytest.mark.parametrize("name", CASES)
def test_reduction(name, check):
    check(*CASES[name])


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "max", "min", "prod", "logsumexp", "cumsum"])
@pytest.mark.parametrize("axis", [None, 0, -1, 1])
def test_values_are_numpys(name, axis, rng):
    x = rng.standard_normal((3, 4, 2))
    expected = np.log(np.exp(x).sum(axis)) if name == "logsumexp" else getattr(np, name)(x, axis=axis)
    np.testing.assert_allclose(getattr(ops, name)(x, axis), expected, rtol=1e-13)
    np.testing.assert_allclose(getattr(minilm.tensor(x), name)(axis=axis).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["max", "min"])
def test_equal_extremes_share_the_gradient(name):
    x = minilm.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 1.0, 3.0]], requires_grad=True)
    getattr(x, name)(axis=1).backward([4.0, 6.0])
    second = [0, 3, 0, 3] if name == "max" else [3, 0, 3, 0]
    assert x.grad.tolist() == [[1, 1, 1, 1], second]


def test_logsumexp_of_masked_rows():
    inf = np.inf
    x = minilm.tensor([[-inf, -inf], [0.0, -inf], [1000.0, 1000.0]], requires_grad=True)
    y = ops.logsumexp(x, 1)
    np.testing.assert_allclose(y.numpy(), [-inf, 0, 1000 + np.log(2)])
    y.backward([1.0, 1.0, 1.0])
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [1, 0], [0.5, 0.5]], rtol=1e-4)
    assert ops.logsumexp(np.zeros((2, 0)), 1).tolist() == [-inf, -inf]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "prod", "logsumexp", "var", "cumsum"])
def test_an_axis_that_is_not_there_is_an_error(name):
    with pytest.raises(np.exceptions.AxisError, match="axis 2 is out of bounds"):
        getattr(minilm.tensor([[1.0, 2.0]], requires_grad=True), name)(axis=2)


def test_sums_in_bfloat16_do_not_stop_at_256():
    x = minilm.tensor(np.ones(1000), dtype="bfloat16")
    assert x.sum().item() == 1000
    assert x.mean().item() == 1
    assert ops.cumsum(x)[-1].item() == 1000
    assert ops.logsumexp(x * 0).item() == pytest.approx(np.log(1000), rel=1e-2)


def test_a_list_is_taken_for_an_array():
    assert ops.sum([1.5, 2.5]) == 4
    assert ops.max([[1.0, 5.0]], 1).tolist() == [5]


HALVES = ["float16", "bfloat16"]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["sum", "mean", "cumsum", "prod", "logsumexp"])
def test_sums_in_16_bits_are_float32s_rounded_once(name, dtype, device, rng):
    dtype = backend.resolve_dtype(dtype)
    x = (1 + rng.random((3000, 2)) / (3000 if name == "prod" else 1)).astype(dtype)
    exact = getattr(ops, name)(x.astype(np.float64), axis=0)
    found = getattr(ops, name)(backend.to_device(x, device), axis=0)
    assert found.dtype == dtype
    rtol = float(ml_dtypes.finfo(dtype).eps) * (4 if name == "logsumexp" else 1)
    np.testing.assert_allclose(backend.to_numpy(found).astype(np.float64), exact, rtol=rtol)


def test_std_of_equal_numbers_has_a_gradient_of_zero(device):
    x = minilm.tensor([[2.0, 2.0], [1.0, 3.0], [np.nan, 1.0]], requires_grad=True, device=device)
    y = ops.std(x, -1)
    np.testing.assert_allclose(y.numpy(), [0, 1, np.nan])
    y[:2].sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[:2], [[0, 0], [-0.5, 0.5]])


def test_logsumexp_of_integers_is_float64():
    assert ops.logsumexp(np.array([1, 1])).dtype == np.float64
    assert float(minilm.tensor([True, True]).logsumexp().item()) == pytest.approx(1 + np.log(2))
