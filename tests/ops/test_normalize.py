"""Softmax and the normalisations: gradients through the kernels and, for second order, through their compositions."""

import numpy as np
import pytest
from devices import beside

import minilm
from minilm import ops


def _torch():
    import torch

    return torch


KEPT = np.array([[True, False, True, True, False], [False] * 5, [True] * 5])


def _masked(x):
    torch = _torch()
    return torch.nan_to_num(torch.where(torch.from_numpy(KEPT), x, -torch.inf).softmax(-1)[[0, 2]])


CASES = {
    "softmax, masked": (lambda x: ops.softmax(x, mask=beside(x, KEPT)), [(3, 5)], None),
    "softmax, masked, without the row that is masked whole": (
        lambda x: ops.softmax(x, mask=beside(x, KEPT))[[0, 2]],
        [(3, 5)],
        _masked,
    ),
    "softmax, masked, axis": (lambda x: ops.softmax(x, 0, mask=beside(x, KEPT.T[..., None])), [(5, 3, 2)], None),
    "softmax, one mask for all": (lambda x: ops.softmax(x, -1, beside(x, KEPT[0])), [(2, 3, 5)], None),
    "softmax": (ops.softmax, [(3, 5)], lambda x: x.softmax(-1)),
    "softmax, axis": (lambda x: ops.softmax(x, 0), [(3, 2, 2)], lambda x: x.softmax(0)),
    "softmax, length 1": (ops.softmax, [(3, 1)], lambda x: x.softmax(-1)),
    "softmax, no rows": (ops.softmax, [(0, 3)], lambda x: x.softmax(-1)),
    "log_softmax": (ops.log_softmax, [(3, 5)], lambda x: x.log_softmax(-1)),
    "log_softmax, axis": (lambda x: ops.log_softmax(x, 1), [(2, 3, 2)], lambda x: x.log_softmax(1)),
    "log_softmax, no rows": (ops.log_softmax, [(0, 3)], lambda x: x.log_softmax(-1)),
    "layer_norm": (
        ops.layer_norm,
        [(2, 3, 4), (4,), (4,)],
        lambda x, w, b: _torch().nn.functional.layer_norm(x, (4,), w, b),
    ),
    "layer_norm, plain": (ops.layer_norm, [(3, 4)], lambda x: _torch().nn.functional.layer_norm(x, (4,))),
    "layer_norm, no bias": (ops.layer_norm, [(3, 4), (4,)], lambda x, w: _torch().nn.functional.layer_norm(x, (4,), w)),
    "layer_norm, one row": (lambda x, w, b: ops.layer_norm(x, w, b, eps=0.1), [(5,), (5,), (5,)], None),
    "layer_norm, no rows": (ops.layer_norm, [(0, 4), (4,), (4,)], None),
    "rms_norm": (ops.rms_norm, [(2, 3, 4), (4,)], lambda x, w: _rms(x) * w),
    "rms_norm, plain": (ops.rms_norm, [(3, 4)], lambda x: _rms(x)),
    "rms_norm, one row": (lambda x, w: ops.rms_norm(x, w, 0.1), [(5,), (5,)], None),
    "rms_norm, no rows": (ops.rms_norm, [(0, 4), (4,)], None),
    "add_layer_norm": (
        ops.add_layer_norm,
        [(2, 3, 4), (2, 3, 4), (4,), (4,)],
        lambda x, r, w, b: (_torch().nn.functional.layer_norm(x + r, (4,), w, b), x + r),
    ),
    "add_layer_norm, plain": (ops.add_layer_norm, [(3, 4), (3, 4)], None),
    "add_layer_norm, no rows": (ops.add_layer_norm, [(0, 4), (0, 4), (4,), (4,)], None),
    "add_layer_norm, the total unused": (lambda x, r: ops.add_layer_norm(x, r)[0], [(3, 4), (3, 4)], None),
    "add_layer_norm, only the total": (lambda x, r: ops.add_layer_norm(x, r)[1], [(3, 4), (3, 4)], None),
    "add_rms_norm": (
        ops.add_rms_norm,
        [(2, 3, 4), (2, 3, 4), (4,)],
        lambda x, r, w: (_rms(x + r) * w, x + r),
    ),
    "add_rms_norm, plain": (ops.add_rms_norm, [(3, 4), (3, 4)], None),
    "layer_norm of a softmax": (lambda x: ops.layer_norm(ops.softmax(x), x[0], x[0]), [(2, 4)], None),
}


def _rms(x):
    return _torch().nn.functional.rms_norm(x, x.shape[-1:], eps=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_operation(name, check):
    check(*CASES[name])


@pytest.mark.parametrize("width", [31, 32, 33, 257])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "layer_norm", "rms_norm"])
def test_widths_about_a_block_in_float32(name, width, rng, torch):
    x = minilm.tensor(rng.standard_normal((5, width)).astype(np.float32), requires_grad=True)
    theirs = torch.tensor(x.numpy(), requires_grad=True)
    g = rng.standard_normal((5, width)).astype(np.float32)
    y = getattr(ops, name)(x)
    y.backward(g)
    settings = {"dim": -1} if "softmax" in name else {"normalized_shape": (width,)}
    if name == "rms_norm":
        settings["eps"] = 1e-6
    expected = getattr(torch.nn.functional, name)(theirs, **settings)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_masked_and_huge_rows(dtype):
    inf = np.inf
    rows = [[-inf, -inf, -inf], [0, -inf, 0], [1e30, -1e30, 0]]
    x = minilm.tensor(rows, dtype=dtype, requires_grad=True)
    y = ops.softmax(x)
    assert y.tolist() == [[0, 0, 0], [0.5, 0, 0.5], [1, 0, 0]]
    (g,) = minilm.grad(y, x, minilm.tensor(np.arange(9).reshape(3, 3), dtype=dtype), create_graph=True)
    assert g.tolist() == [[0, 0, 0], [-0.5, 0, 0.5], [0, 0, 0]]
    (gg,) = minilm.grad(g.sum(), x)
    assert np.isfinite(gg.numpy()).all()


def test_log_softmax_keeps_its_digits_far_from_zero(torch):
    x = np.array([[3e4, 3e4 - 3, 3e4 - 1000]], np.float32)
    expected = torch.tensor(x).log_softmax(-1).numpy()
    np.testing.assert_allclose(ops.log_softmax(x), expected, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        assert ops.log_softmax(np.array([0, -np.inf, 0])).tolist() == [-np.log(2), -np.inf, -np.log(2)]


def test_softmax_keeps_its_output_and_not_its_input():
    x = minilm.tensor(np.zeros((2, 3)), requires_grad=True)
    y = ops.softmax(x)
    assert list(y._node.kept) == ["y"]


def test_second_order_of_float32_through_a_composition():
    """The composition is differentiated on the tape; in float32 too, and the values agree with the kernel's."""
    x = minilm.tensor(np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4), requires_grad=True)
    weight = minilm.tensor(np.ones(4, np.float32), requires_grad=True)
    y = (ops.layer_norm(x, weight) ** 3).sum()
    fused = minilm.grad(y, [x, weight], retain_graph=True)
    composed = minilm.grad(y, [x, weight], create_graph=True)
    for a, b in zip(fused, composed):
        assert b.requires_grad
        assert b.dtype == np.float32
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_a_rounded_result_and_its_second_order(norm, add):
    x = minilm.tensor(np.linspace(-1, 2, 8, dtype="float32").reshape(2, 4), requires_grad=True)
    weight = minilm.tensor(np.linspace(1, 2, 4, dtype="float32"), requires_grad=True)
    if add:
        y = getattr(ops, f"add_{norm}")(x, x * x, weight, dtype="bfloat16")[0]
    else:
        y = getattr(ops, norm)(x, weight, dtype="bfloat16")
    assert y.dtype == "bfloat16"
    loss = (ops.astype(y, "float32") ** 3).sum()
    fused = minilm.grad(loss, [x, weight], retain_graph=True)
    composed = minilm.grad(loss, [x, weight], create_graph=True)
    for a, b in zip(fused, composed):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-2, atol=2e-2)
    (second,) = minilm.grad((composed[0] ** 2).sum(), x)
    assert np.isfinite(second.numpy()).all()
    assert second.numpy().any()


def test_shapes_that_do_not_fit_are_an_error():
    x = minilm.tensor(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"weight has shape \(2,\); expected \(3,\)"):
        ops.layer_norm(x, np.ones(2, np.float32))
    with pytest.raises(ValueError, match="axis is 2"):
        ops.softmax(x, 2)


@pytest.mark.parametrize("function", [ops.softmax, ops.log_softmax])
def test_one_axis_has_to_be_named(function):
    with pytest.raises(TypeError, match="axis is None; expected an integer"):
        function(np.ones((2, 3), np.float32), axis=None)
