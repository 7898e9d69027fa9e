"""cross_entropy and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import cross_entropy, cross_entropy_backward, implementations
from minilm_kernels.chunks import SERIAL_BELOW

CPU = [entry.name for entry in implementations("cross_entropy", device="cpu")]


def arrays(rows, classes, seed=0, ignored=0.2):
    """Logits, targets (some of them -100) and a gradient."""
    random = np.random.default_rng(seed)
    targets = np.where(random.random(rows) < ignored, -100, random.integers(0, classes, rows))
    logits = (3 * random.standard_normal((rows, classes))).astype(np.float32)
    return logits, targets, random.standard_normal(rows).astype(np.float32)


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 9),
    classes=st.sampled_from([1, 2, 7, 65, 300]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    integers=st.sampled_from([np.int64, np.int32, np.int16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, rows, classes, smoothing, layout, integers, seed, error_law, laid_out):
    logits, targets, g = arrays(rows, classes, seed)
    logits, targets = laid_out(logits, layout), laid_out(targets.astype(integers), layout)
    _, logsumexp = cross_entropy(logits, targets)
    run = {"implementation": implementation, "label_smoothing": smoothing, "size": np.abs(logits).max(initial=1)}
    error_law(cross_entropy, logits, targets, **run)
    error_law(cross_entropy_backward, laid_out(g, layout), logits, targets, logsumexp, **run)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize(("rows", "classes"), [(SERIAL_BELOW // 64, 65), (3, 50257)])
def test_large_arrays(implementation, rows, classes, error_law):
    logits, targets, g = arrays(rows, classes)
    error_law(cross_entropy, logits, targets, implementation=implementation, label_smoothing=0.1)
    _, logsumexp = cross_entropy(logits, targets)
    error_law(cross_entropy_backward, g, logits, targets, logsumexp, implementation=implementation)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_reference_gradient_is_the_finite_difference(smoothing, numeric_gradient):
    logits, targets, g = arrays(5, 4)
    logits, g = logits.astype(np.float64), g.astype(np.float64)
    options = {"label_smoothing": smoothing, "ignore_index": -100, "implementation": "reference"}
    _, logsumexp = cross_entropy(logits, targets, **options)
    expected = numeric_gradient(lambda: cross_entropy(logits, targets, **options)[0], logits, g)
    found = cross_entropy_backward(g, logits, targets, logsumexp, **options)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_agrees_with_torch(implementation, smoothing):
    torch = pytest.importorskip("torch")
    logits, targets, g = arrays(50, 97)
    leaf = torch.from_numpy(logits).requires_grad_()
    theirs = torch.nn.functional.cross_entropy(
        leaf, torch.from_numpy(targets), reduction="none", label_smoothing=smoothing
    )
    theirs.backward(torch.from_numpy(g))
    options = {"label_smoothing": smoothing, "implementation": implementation}
    losses, logsumexp = cross_entropy(logits, targets, **options)
    np.testing.assert_allclose(losses, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    dlogits = cross_entropy_backward(g, logits, targets, logsumexp, **options)
    np.testing.assert_allclose(dlogits, leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", CPU)
def test_ignored_rows_count_nothing(implementation):
    logits, targets, g = arrays(6, 5, ignored=0)
    targets[[0, 3]] = 2  # a class may be the one to ignore
    logits[3], g[0] = np.nan, np.inf
    losses, logsumexp = cross_entropy(logits, targets, ignore_index=2, implementation=implementation)
    dlogits = cross_entropy_backward(g, logits, targets, logsumexp, ignore_index=2, implementation=implementation)
    ignored = targets == 2
    np.testing.assert_array_equal(losses[ignored], 0)
    np.testing.assert_array_equal(dlogits[ignored], 0)
    assert (losses[~ignored] > 0).all()


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("classes", [5, SERIAL_BELOW // 4])
def test_masked_classes_and_nan(implementation, classes):
    logits, targets, g = arrays(4, classes, ignored=0)
    targets[:] = 1
    logits[0, 2] = -np.inf
    logits[1, 2] = np.nan
    logits[2] = -np.inf  # no class is possible: the loss is not a number
    losses, logsumexp = cross_entropy(logits, targets, implementation=implementation)
    dlogits = cross_entropy_backward(g, logits, targets, logsumexp, implementation=implementation)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, True, False])
    np.testing.assert_array_equal(logsumexp[2], -np.inf)
    assert dlogits[0, 2] == 0
    assert np.isnan(dlogits[1]).all()
    assert np.isfinite(dlogits[[0, 3]]).all()


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("rows", [6, SERIAL_BELOW // 4])
@pytest.mark.parametrize("wrong", [5, -1, -101, 2**40])
def test_a_target_out_of_range_is_named(implementation, rows, wrong):
    logits, targets, g = arrays(rows, 5)
    targets[4] = wrong
    message = (
        rf"targets\[4\] is {wrong}; expected a class in \[0, 5\), as the logits have 5 columns, or ignore_index=-100"
    )
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, targets, implementation=implementation)
    with pytest.raises(ValueError, match=message):
        cross_entropy_backward(g, logits, targets, g, implementation=implementation)


@pytest.mark.parametrize("implementation", CPU)
def test_the_first_wrong_target_is_named(implementation):
    logits, targets, _ = arrays(SERIAL_BELOW // 4, 5)
    targets[[40, 4000]] = 7
    with pytest.raises(ValueError, match=r"targets\[40\] is 7"):
        cross_entropy(logits, targets, implementation=implementation)


def test_same_bits_on_any_number_of_threads(same_bits):
    logits, targets, g = arrays(SERIAL_BELOW // 128, 129)
    _, logsumexp = cross_entropy(logits, targets)
    same_bits(lambda: cross_entropy(logits, targets, label_smoothing=0.1))
    same_bits(lambda: cross_entropy_backward(g, logits, targets, logsumexp))


def test_errors_say_what_to_do():
    logits, targets, g = arrays(4, 5)
    with pytest.raises(ValueError, match=r"logits has shape \(2, 2, 5\); expected \(N, V\): reshape it to \(-1, 5\)"):
        cross_entropy(logits.reshape(2, 2, 5), targets)
    with pytest.raises(ValueError, match=r"logits has shape \(4, 0\); expected \(..., C\) with C of 1 or more"):
        cross_entropy(logits[:, :0], targets)
    with pytest.raises(TypeError, match=r"targets is float32; expected integers: use targets.astype\('int64'\)"):
        cross_entropy(logits, g)
    with pytest.raises(ValueError, match=r"targets has shape \(3,\); expected \(4,\)"):
        cross_entropy(logits, targets[:3])
    with pytest.raises(ValueError, match=r"label_smoothing is 1.5; expected a share in \[0, 1\]"):
        cross_entropy(logits, targets, label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(4,\)"):
        cross_entropy_backward(g[:3], logits, targets, g)
    with pytest.raises(TypeError, match="logsumexp is float64; expected float32"):
        cross_entropy_backward(g, logits, targets, g.astype(np.float64))
