"""An optimiser's step whose numbers are on the device: the kernels' own, and what it refuses to take."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import adamw, device_numbers, lamb

import minilm
from minilm import backend
from minilm.optim import LAMB, AdamW, CapturedUpdate


def backend_tensor(n):
    return minilm.tensor(np.ones(n, np.float32), requires_grad=True)


def test_the_update_refuses_what_it_does_not_fit():
    w, v = (backend_tensor(n) for n in (3, 2))
    optimizer = AdamW([("w", w), ("v", v)], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    (v * v).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match="different numbers of steps"):
        CapturedUpdate(optimizer)


def test_a_group_that_takes_no_part_is_passed_over():
    w, v = (backend_tensor(n) for n in (3, 2))
    optimizer = LAMB([{"params": [v]}, {"params": [w]}], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    update = CapturedUpdate(optimizer)
    update.start()
    (w * w).sum().backward()
    before = w.numpy().copy()
    update.apply(np.array(1.0), np.array(update.numbers()))
    assert (w.numpy() < before).all()
    np.testing.assert_array_equal(v.numpy(), 1)


def test_the_update_refuses_a_dtype_that_no_kernel_on_the_card_takes(cuda_standin):
    w = minilm.tensor(np.ones(3), requires_grad=True).to("cuda").detach()
    w.requires_grad = True
    optimizer = AdamW([w], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match="its parameters are float64, and kernels for CUDA take float32, float16"):
        CapturedUpdate(optimizer)


@pytest.mark.parametrize(
    ("kernel", "by_numbers", "settings"),
    [
        (adamw, device_numbers.adamw, {"decoupled": True}),
        (adamw, device_numbers.adamw, {"decoupled": False}),
        (lamb, device_numbers.lamb, {"adapt": True, "max_weight_norm": 2.0}),
        (lamb, device_numbers.lamb, {"adapt": False, "max_weight_norm": None}),
    ],
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_update_by_device_numbers(rng, kernel, by_numbers, settings, device):
    settings = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, **settings}
    arrays = [
        [rng.standard_normal((5, 7)).astype(np.float32), rng.standard_normal(3).astype(np.float32)] for _ in "pgmv"
    ]
    arrays[3] = [x**2 for x in arrays[3]]
    theirs = [[x.copy() for x in group] for group in arrays]
    kernel(*theirs, lr=0.01, step=7, grad_scale=0.5, implementation="reference", **settings)
    mine = [[backend.to_device(x, device) for x in group] for group in arrays]
    numbers = [backend.to_device(np.array(x), device) for x in (0.01, 7.0, 0.5)]
    by_numbers(*mine, **dict(zip(("lr", "step", "grad_scale"), numbers)), **settings)
    for group, expected in zip(mine, theirs):
        for x, y in zip(group, expected):
            np.testing.assert_allclose(backend.to_numpy(x), y, rtol=2e-6, atol=1e-7)
    before = [backend.to_numpy(x).copy() for group in mine for x in group]
    numbers[2] = backend.to_device(np.array(np.nan), device)
    by_numbers(*mine, **dict(zip(("lr", "step", "grad_scale"), numbers)), **settings)
    for x, y in zip((x for group in mine for x in group), before):
        np.testing.assert_array_equal(backend.to_numpy(x), y)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_norm_and_clipping_by_device_numbers(rng, device):
    arrays = [rng.standard_normal(n).astype(np.float32) for n in (1000, 3)]
    length = device_numbers.norm([backend.to_device(x, device) for x in arrays])
    expected = np.linalg.norm(np.concatenate(arrays).astype(np.float64))
    np.testing.assert_allclose(float(length), expected, rtol=1e-12)
    assert float(device_numbers.clip_coefficient(length, 1.0)) == pytest.approx(1 / (expected + 1e-6))
    assert float(device_numbers.clip_coefficient(length, 1e9)) == float(device_numbers.clip_coefficient(length, 0)) == 1
    assert np.isnan(float(device_numbers.clip_coefficient(length * np.inf, 0)))
