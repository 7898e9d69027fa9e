"""cross_entropy: gradients, torch's values for every setting, masked classes and ignored rows."""

import numpy as np
import pytest

import minilm
from minilm import ops

TARGETS = np.array([1, 0, -100, 3])
SETTINGS = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothed": {"label_smoothing": 0.2},
    "smoothed, none": {"label_smoothing": 0.2, "reduction": "none"},
    "another ignore_index": {"ignore_index": 3},
}


def _oracle(targets, settings):
    def call(logits):
        import torch

        rows = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), torch.from_numpy(targets.reshape(-1)), **settings
        )
        return rows.reshape(targets.shape) if settings.get("reduction") == "none" else rows

    return call


@pytest.mark.parametrize("name", SETTINGS)
def test_cross_entropy(name, check):
    settings = SETTINGS[name]
    targets = np.where(TARGETS < 0, settings.get("ignore_index", -100), TARGETS)
    check(lambda x: ops.cross_entropy(x, targets, **settings), [(4, 5)], _oracle(targets, settings))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)])
def test_targets_of_any_shape(shape, check, rng):
    targets = rng.integers(0, 4, shape)
    check(lambda x: ops.cross_entropy(x, targets), [(*shape, 4)], _oracle(np.asarray(targets), {}))


def test_no_rows_at_all(check):
    check(lambda x: ops.cross_entropy(x, np.zeros(0, int), reduction="sum"), [(0, 4)])


def test_all_rows_ignored_gives_nan_as_in_torch(device):
    x = minilm.tensor(np.zeros((2, 3)), requires_grad=True, device=device)
    assert np.isnan(ops.cross_entropy(x, [-100, -100]).item())
    loss = ops.cross_entropy(x, [-100, -100], reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert x.grad.tolist() == np.zeros((2, 3)).tolist()


def test_masked_classes_and_ignored_rows_give_no_nan(device):
    rows = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, 0.0]])
    x = minilm.tensor(rows, requires_grad=True, device=device)
    loss = ops.cross_entropy(x, [2, -100])
    np.testing.assert_allclose(loss.item(), np.log(2))
    (g,) = minilm.grad(loss, x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), [[0.5, 0, -0.5], [0, 0, 0]], atol=1e-15)
    (fused,) = minilm.grad(ops.cross_entropy(x, [2, -100]), x)
    np.testing.assert_allclose(fused.numpy(), g.numpy(), atol=1e-15)
    with np.errstate(invalid="ignore"):
        assert np.isfinite(minilm.grad((g[0, 0] ** 2).sum(), x)[0].numpy()).all()


@pytest.mark.parametrize("targets", [[1, 0], np.array([1, 0], np.uint8), minilm.tensor([1, 0])])
def test_targets_may_be_a_list_an_array_or_a_tensor(targets):
    loss = ops.cross_entropy(minilm.tensor(np.zeros((2, 4), np.float32)), targets)
    assert loss.dtype == np.float32
    assert loss.item() == pytest.approx(np.log(4))


def test_large_vocabulary_in_float32(rng, torch, device):
    logits = rng.standard_normal((7, 1025)).astype(np.float32) * 5
    targets = rng.integers(0, 1025, 7)
    x, theirs = minilm.tensor(logits, requires_grad=True, device=device), torch.tensor(logits, requires_grad=True)
    loss = ops.cross_entropy(x, targets)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(targets))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=2e-5, atol=1e-8)


REFUSED = {
    "target too high": (lambda x: ops.cross_entropy(x, [0, 3]), ValueError, r"targets\[1\] is 3; .*\[0, 3\)"),
    "target below": (lambda x: ops.cross_entropy(x, [0, -1]), ValueError, r"targets\[1\] is -1"),
    "shape": (lambda x: ops.cross_entropy(x, [0]), ValueError, r"fit targets \(2,\), got \(1,\)"),
    "floats": (lambda x: ops.cross_entropy(x, [0.0, 1.0]), TypeError, "integers"),
    "reduction": (lambda x: ops.cross_entropy(x, [0, 1], reduction="avg"), ValueError, "mean, sum, none, not 'avg'"),
    "smoothing": (lambda x: ops.cross_entropy(x, [0, 1], label_smoothing=2), ValueError, "between 0 and 1; got 2"),
    "no classes": (lambda x: ops.cross_entropy(x[:, :0], [0, 1]), ValueError, r"one class or more; .* \(2, 0\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name, device):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(minilm.tensor(np.zeros((2, 3)), requires_grad=True, device=device))


def _linear(targets, settings):
    """The fused loss, and the same in torch's two steps."""
    oracle = _oracle(targets, settings)

    def composed(x, weight, bias=None):
        import torch

        return oracle(torch.nn.functional.linear(x, weight, bias))

    return lambda *inputs: ops.linear_cross_entropy(*inputs[:2], targets, *inputs[2:], chunk=2, **settings), composed


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shapes", [[(4, 3), (5, 3)], [(4, 3), (5, 3), (5,)]], ids=["plain", "bias"])
def test_linear_cross_entropy(name, shapes, check):
    settings = SETTINGS[name]
    targets = np.where(TARGETS < 0, settings.get("ignore_index", -100), TARGETS)
    function, oracle = _linear(targets, settings)
    check(function, shapes, oracle)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_linear_cross_entropy_with_targets_of_any_shape(shape, check, rng):
    targets = rng.integers(0, 4, shape)
    check(lambda x, w: ops.linear_cross_entropy(x, w, targets), [(*shape, 3), (4, 3)], _linear(targets, {})[1])


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_linear_cross_entropy_of_frozen_inputs_and_scaled(wanted, rng, device):
    inputs = [
        minilm.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=flag, device=device)
        for shape, flag in zip([(6, 3), (7, 3)], wanted)
    ]
    targets = rng.integers(0, 7, 6)
    fused, plain = ops.linear_cross_entropy(*inputs, targets), ops.cross_entropy(ops.linear(*inputs), targets)
    leaf = inputs[0] if wanted[0] else inputs[1]
    for scale in (1.0, 0.25):
        (mine,) = minilm.grad(scale * fused, leaf, retain_graph=True)
        (again,) = minilm.grad(scale * fused, leaf, retain_graph=True)
        (expected,) = minilm.grad(scale * plain, leaf, retain_graph=True)
        np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(mine.numpy(), again.numpy())


def test_linear_cross_entropy_makes_gradients_only_where_they_are_wanted(rng, device):
    x, w = (minilm.tensor(rng.standard_normal((4, 4)), requires_grad=True, device=device) for _ in range(2))
    loss = ops.linear_cross_entropy(x, w, [0, 1, 2, 3])
    assert loss._node.kept["dweight"].shape == (4, 4)
    with minilm.no_grad():
        assert ops.linear_cross_entropy(x, w, [0, 1, 2, 3]).item() == pytest.approx(loss.item())
    each = ops.linear_cross_entropy(x, w, [0, 1, 2, 3], reduction="none")
    assert each._node.kept["dweight"] is None  # weighed in the backward pass, when the weights are known


def test_linear_cross_entropy_refuses_what_does_not_fit():
    x, w = minilm.tensor(np.zeros((2, 3)), requires_grad=True), np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"targets\[1\] is 4; .*\[0, 4\)"):
        ops.linear_cross_entropy(x, w, [0, 4])
    with pytest.raises(ValueError, match=r"fit targets \(2,\), got \(1,\)"):
        ops.linear_cross_entropy(x, w, [0])
    with pytest.raises(ValueError, match="reduction is one of"):
        ops.linear_cross_entropy(x, w, [0, 1], reduction="avg")
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); expected \(4,\)"):
        ops.linear_cross_entropy(x, w, [0, 1], np.zeros(3))
