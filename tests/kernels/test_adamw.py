"""adamw, every implementation against torch's optimisers, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import adamw, implementations

CPU = [entry.name for entry in implementations("adamw", device="cpu")]
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


def zeros(params):
    return [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_torch_step_by_step(implementation, decoupled, dtype):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    params, *_ = arrays(dtype)
    averages, squares = zeros(params)
    leaves = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    settings = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    optimiser = (torch.optim.AdamW if decoupled else torch.optim.Adam)(leaves, foreach=False, **settings)
    tolerance = {"rtol": 2e-6, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    for step in range(1, 6):
        grads = [np.array(random.standard_normal(p.shape), dtype) for p in params]
        for leaf, g in zip(leaves, grads):
            leaf.grad = torch.from_numpy(np.asarray(g * dtype(0.5)))
        optimiser.step()
        adamw(
            params,
            grads,
            averages,
            squares,
            step=step,
            decoupled=decoupled,
            grad_scale=0.5,
            implementation=implementation,
            **settings,
        )
        for p, m, v, leaf in zip(params, averages, squares, leaves):
            state = optimiser.state[leaf]
            np.testing.assert_allclose(p, leaf.detach().numpy(), **tolerance)
            np.testing.assert_allclose(m, state["exp_avg"].numpy(), **tolerance)
            np.testing.assert_allclose(v, state["exp_avg_sq"].numpy(), **tolerance)
            assert p.dtype == dtype


@pytest.mark.parametrize("implementation", CPU)
def test_is_the_formula(implementation):
    params, grads, averages, squares = arrays()
    before = [[array.astype(np.float64) for array in some] for some in (params, grads, averages, squares)]
    lr, (b1, b2), eps, decay, t = 0.01, (0.9, 0.99), 1e-8, 0.2, 7
    adamw(
        params,
        grads,
        averages,
        squares,
        lr=lr,
        betas=(b1, b2),
        eps=eps,
        weight_decay=decay,
        step=t,
        implementation=implementation,
    )
    for i, (p, g, m, v) in enumerate(zip(*before)):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p - lr * decay * p - lr / (1 - b1**t) * m / (np.sqrt(v / (1 - b2**t)) + eps)
        for mine, exact in ((params[i], p), (averages[i], m), (squares[i], v)):
            np.testing.assert_allclose(mine, exact, rtol=2e-6, atol=1e-6)
        np.testing.assert_array_equal(grads[i], g)


@pytest.mark.parametrize("implementation", CPU)
def test_nan_stays_in_its_element(implementation):
    params, grads, averages, squares = arrays()
    grads[4][70_000] = np.nan
    adamw(params, grads, averages, squares, lr=0.1, step=1, implementation=implementation)
    bad = np.isnan(params[4])
    assert bad[70_000]
    assert bad.sum() == 1


@pytest.mark.parametrize("implementation", CPU)
def test_gradients_may_be_read_only(implementation):
    params, grads, averages, squares = arrays()
    for g in grads:
        g.flags.writeable = False
    kept = params[0].copy()
    adamw(params, grads, averages, squares, lr=0.1, step=1, implementation=implementation)
    assert not np.array_equal(params[0], kept)


@pytest.mark.parametrize("implementation", CPU)
def test_no_parameters_is_no_work(implementation):
    assert adamw([], [], [], [], lr=0.1, step=1, implementation=implementation) is None
    adamw(*([np.zeros((0, 3), np.float32)] for _ in range(4)), lr=0.1, step=1, implementation=implementation)


def test_same_bits_on_any_number_of_threads(same_bits):
    def run():
        state = arrays()
        adamw(*state, lr=0.1, step=3)
        return tuple(state[0] + state[2] + state[3])

    same_bits(run)


def test_errors_say_what_to_do():
    params, grads, averages, squares = arrays()
    run = lambda *lists, **options: adamw(*lists, **({"lr": 0.1, "step": 1} | options))
    with pytest.raises(ValueError, match="lists of one length, one array for each parameter; got params 6, grads 5, "):
        run(params, grads[:5], averages, squares)
    with pytest.raises(ValueError, match="step is 0; steps are counted from 1"):
        run(params, grads, averages, squares, step=0)
    with pytest.raises(ValueError, match=r"betas are \(1.0, 0.9\); expected two numbers in \[0, 1\)"):
        run(params, grads, averages, squares, betas=(1.0, 0.9))
    with pytest.raises(ValueError, match=r"grads\[0\] has shape \(5, 3\); expected \(3, 5\)"):
        run(params, [grads[0].T, *grads[1:]], averages, squares)
    with pytest.raises(TypeError, match=r"exp_avgs\[3\] is float64; expected float32"):
        run(params, grads, [*averages[:3], averages[3].astype(np.float64), *averages[4:]], squares)
    with pytest.raises(ValueError, match=r"params\[0\] is not C-contiguous.*make it contiguous"):
        run([np.asfortranarray(params[0]), *params[1:]], grads, averages, squares)
    squares[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"exp_avg_sqs\[1\] is read-only, and is to be updated in place"):
        run(params, grads, averages, squares)
