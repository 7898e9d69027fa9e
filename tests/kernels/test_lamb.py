"""lamb, every implementation against the formula in float64 and the reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from minilm_kernels import implementations, lamb
from minilm_kernels.lamb import cuda as lamb_cuda

CPU = [entry.name for entry in implementations("lamb", device="cpu")]
SHAPES = [(3, 5), (), (0, 4), (7,), (100_003,), (65, 33)]  # one longer than a chunk, one empty, one scalar


def arrays(dtype=np.float32, shapes=SHAPES, seed=0):
    """Lists of parameters, gradients, and means of gradients and of their squares."""
    random = np.random.default_rng(seed)
    params, grads, averages = ([np.array(random.standard_normal(s), dtype) for s in shapes] for _ in range(3))
    return (
        params,
        grads,
        [np.asarray(0.1 * m, dtype) for m in averages],
        [np.array(random.random(s), dtype) for s in shapes],
    )


def exact(p, g, m, v, *, lr, betas, eps, weight_decay, step, adapt=True, max_weight_norm=None, grad_scale=1.0):
    """The formula, in float64."""
    p, g, m, v = (array.astype(np.float64) for array in (p, g, m, v))
    (b1, b2), g = betas, g * grad_scale
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    u = m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + eps) + weight_decay * p
    norm, update = np.sqrt((p**2).sum()), np.sqrt((u**2).sum())
    ratio = min(norm, max_weight_norm or np.inf) / update if adapt and norm > 0 and update > 0 else 1
    return p - lr * ratio * u, m, v


OPTIONS = [{}, {"adapt": False}, {"max_weight_norm": 2.0}, {"weight_decay": 0.0}]
SETTINGS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "grad_scale": 0.5, "step": 3}


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_formula(implementation, options, dtype):
    check_formula(partial(lamb, implementation=implementation, **SETTINGS | options), dtype, SETTINGS | options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_is_the_formula_in_cuda(emulated, options):
    settings = {"adapt": True, "max_weight_norm": None} | SETTINGS | options
    with emulated():
        check_formula(partial(lamb_cuda.lamb, **settings), np.float32, settings)


def check_formula(step, dtype, settings):
    state = arrays(dtype)
    state[0][0][...] = 0  # a parameter without a length takes the step as it is
    expected = [exact(*some, **settings) for some in zip(*state)]
    grads = [g.copy() for g in state[1]]
    step(*state)
    tolerance = {"rtol": 3e-6, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for i, (p, m, v) in enumerate(expected):
        for mine, theirs in ((state[0][i], p), (state[2][i], m), (state[3][i], v)):
            assert mine.dtype == dtype
            np.testing.assert_allclose(mine, theirs, **tolerance)
        np.testing.assert_array_equal(state[1][i], grads[i])


@pytest.mark.parametrize("implementation", [*CPU, "cuda"])
def test_nan_stays_in_its_array(implementation, request):
    state = arrays()
    state[1][4][70_000] = np.nan
    if implementation == "cuda":
        with request.getfixturevalue("emulated")(descending=True):
            lamb_cuda.lamb(*state, **SETTINGS, adapt=True, max_weight_norm=None)
    else:
        lamb(*state, lr=0.1, step=1, implementation=implementation)
    assert [bool(np.isnan(p).any()) for p in state[0]] == [False, False, False, False, True, False]


@pytest.mark.parametrize("implementation", CPU)
def test_no_parameters_is_no_work(implementation):
    assert lamb([], [], [], [], lr=0.1, step=1, implementation=implementation) is None
    lamb(*([np.zeros((0, 3), np.float32)] for _ in range(4)), lr=0.1, step=1, implementation=implementation)


def test_same_bits_on_any_number_of_threads(same_bits):
    def run():
        state = arrays()
        lamb(*state, lr=0.1, step=3)
        return tuple(state[0] + state[2] + state[3])

    same_bits(run)


def test_errors_say_what_to_do():
    params, grads, averages, squares = arrays()
    run = lambda *lists, **options: lamb(*lists, **({"lr": 0.1, "step": 1} | options))
    with pytest.raises(ValueError, match="lists of one length, one array for each parameter; got params 6, grads 5, "):
        run(params, grads[:5], averages, squares)
    with pytest.raises(ValueError, match="step is 0; steps are counted from 1"):
        run(params, grads, averages, squares, step=0)
    with pytest.raises(ValueError, match=r"betas are \(1.0, 0.9\); expected two numbers in \[0, 1\)"):
        run(params, grads, averages, squares, betas=(1.0, 0.9))
    with pytest.raises(ValueError, match="max_weight_norm is 0; expected a number above 0, or None"):
        run(params, grads, averages, squares, max_weight_norm=0)
    with pytest.raises(ValueError, match=r"grads\[0\] has shape \(5, 3\); expected \(3, 5\)"):
        run(params, [grads[0].T, *grads[1:]], averages, squares)
    with pytest.raises(ValueError, match=r"params\[0\] is not C-contiguous.*make it contiguous"):
        run([np.asfortranarray(params[0]), *params[1:]], grads, averages, squares)
    squares[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"exp_avg_sqs\[1\] is read-only, and is to be updated in place"):
        run(params, grads, averages, squares)
