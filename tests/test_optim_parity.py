"""Optimisers against torch.optim, step by step, and LAMB against its formula written out in float64."""

import numpy as np
import pytest

import minilm
from minilm.optim import LAMB, SGD, Adam, AdamW

STEPS = 25
SHAPES = ((3, 4), (5,), (2, 3, 2), (), (1,), (0, 3), (7, 9))
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def parameters(dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]


def gradients(dtype, steps=STEPS, seed=1):
    rng = np.random.default_rng(seed)
    return [[np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES] for _ in range(steps)]


def ours(arrays):
    return [minilm.tensor(array.copy(), requires_grad=True) for array in arrays]


def set_gradients(tensors, arrays, make):
    for tensor, array in zip(tensors, arrays):
        tensor.grad = None if array is None else make(array.copy())


def assert_parity(dtype, make_ours, make_theirs, missing=frozenset(), grad_scale=1.0):
    """Both optimisers take the same gradients; parameters agree after each step."""
    torch = pytest.importorskip("torch")
    mine = ours(parameters(dtype))
    theirs = [torch.tensor(array, requires_grad=True) for array in parameters(dtype)]
    optimizer, oracle = make_ours(mine), make_theirs(torch, theirs)
    for step, arrays in enumerate(gradients(dtype)):
        arrays = [None if (step, i) in missing else array for i, array in enumerate(arrays)]
        set_gradients(mine, arrays, minilm.tensor)
        set_gradients(theirs, [a if a is None else a * np.asarray(grad_scale, dtype) for a in arrays], torch.tensor)
        optimizer.step(grad_scale=grad_scale)
        oracle.step()
        for p, q in zip(mine, theirs):
            assert p.dtype == dtype
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


SGD_SETTINGS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05},
    {"momentum": 0.8, "nesterov": True},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SGD_SETTINGS, ids=str)
def test_sgd(dtype, settings):
    assert_parity(dtype, lambda p: SGD(p, lr=0.05, **settings), lambda t, p: t.optim.SGD(p, lr=0.05, **settings))


ADAM_SETTINGS = [
    {},
    {"weight_decay": 0.1},
    {"betas": (0.5, 0.9), "eps": 1e-3},
    {"betas": (0.0, 0.99), "weight_decay": 0.3, "lr": 0.1},
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", ADAM_SETTINGS, ids=str)
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam(dtype, settings, kind):
    settings = {"lr": 0.01} | settings
    assert_parity(dtype, lambda p: kind(p, **settings), lambda t, p: getattr(t.optim, kind.__name__)(p, **settings))


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_parameter_larger_than_what_a_thread_takes_at_once(kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.standard_normal((300, 250))
    mine, theirs = minilm.tensor(start.copy(), requires_grad=True), torch.tensor(start, requires_grad=True)
    optimizer, oracle = kind([mine], lr=0.1), getattr(torch.optim, kind.__name__)([theirs], lr=0.1)
    for _ in range(3):
        gradient = rng.standard_normal(start.shape)
        mine.grad, theirs.grad = minilm.tensor(gradient), torch.tensor(gradient)
        optimizer.step()
        oracle.step()
    np.testing.assert_allclose(mine.numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-12)


def test_defaults_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for kind in (SGD, Adam, AdamW):
        theirs = getattr(torch.optim, kind.__name__)([torch.zeros(1, requires_grad=True)]).defaults
        mine = kind([minilm.tensor([0.0], requires_grad=True)]).defaults
        assert mine == {key: theirs[key] for key in mine}


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_groups_have_settings_of_their_own(kind):
    extra = {"momentum": 0.5} if kind is SGD else {"betas": (0.8, 0.95)}

    def groups(p):
        return [{"params": p[:2], "lr": 0.1, "weight_decay": 0.0}, {"params": p[2:5], **extra}, {"params": p[5:]}]

    assert_parity(
        "float64",
        lambda p: kind(groups(p), lr=0.01, weight_decay=0.2),
        lambda t, p: getattr(t.optim, kind.__name__)(groups(p), lr=0.01, weight_decay=0.2),
    )


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_parameters_without_a_gradient_are_passed_over(kind):
    """Their count of steps, and so their bias correction, stands still: also where the first gradient comes late."""
    settings = {"momentum": 0.9, "dampening": 0.5} if kind is SGD else {}
    missing = {(0, 0), (1, 0), (2, 0), (3, 1), (7, 6)} | {(step, 2) for step in range(STEPS)}
    assert_parity(
        "float64",
        lambda p: kind(p, lr=0.01, **settings),
        lambda t, p: getattr(t.optim, kind.__name__)(p, lr=0.01, **settings),
        missing,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_grad_scale_multiplies_gradients(kind, dtype):
    settings = {"momentum": 0.9} if kind is SGD else {"eps": 1e-2}  # a large eps: else Adam's step knows no scale
    assert_parity(
        dtype,
        lambda p: kind(p, lr=0.01, weight_decay=0.1, **settings),
        lambda t, p: getattr(t.optim, kind.__name__)(p, lr=0.01, weight_decay=0.1, **settings),
        grad_scale=0.25,
    )


def test_a_learning_rate_changed_between_steps_is_followed():
    torch = pytest.importorskip("torch")
    mine, theirs = ours(parameters("float64")), [torch.tensor(a, requires_grad=True) for a in parameters("float64")]
    optimizer, oracle = AdamW(mine, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    for step, arrays in enumerate(gradients("float64")):
        set_gradients(mine, arrays, minilm.tensor)
        set_gradients(theirs, arrays, torch.tensor)
        for each in (optimizer, oracle):
            each.param_groups[0]["lr"] = 0.1 / (step + 1)
            each.step()
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)


def lamb_by_the_formula(p, grads, lr, betas, eps, weight_decay, limit, adapt):
    """Algorithm 2 of You et al. 2019 for one parameter, in float64."""
    p, m, v = p.astype("float64"), np.zeros(p.shape), np.zeros(p.shape)
    for t, g in enumerate(grads, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        ratio = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        u = ratio + weight_decay * p
        lengths = np.linalg.norm(p.ravel()), np.linalg.norm(u.ravel())
        phi = lengths[0] if limit is None else min(lengths[0], limit)
        trust = phi / lengths[1] if adapt and min(lengths) > 0 else 1.0
        p = p - lr * trust * u
    return p


LAMB_SETTINGS = [
    {},
    {"weight_decay": 0.0},
    {"weight_decay": 0.0, "always_adapt": True},
    {"max_weight_norm": 0.5, "betas": (0.8, 0.9), "eps": 1e-3},
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", LAMB_SETTINGS, ids=str)
@pytest.mark.parametrize("grad_scale", [1.0, 0.1])
def test_lamb(dtype, settings, grad_scale):
    starts = [*parameters(dtype)[:6], np.zeros((3, 2), dtype)]  # a zero weight has a trust ratio of 1
    mine = ours(starts)
    optimizer = LAMB(mine, lr=0.01, **settings)
    grads = [[*arrays[:6], np.full((3, 2), 0.5, dtype)] for arrays in gradients(dtype)]
    for arrays in grads:
        set_gradients(mine, arrays, minilm.tensor)
        optimizer.step(grad_scale=grad_scale)
    filled = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01, **settings}
    adapt = filled["weight_decay"] > 0 or filled.pop("always_adapt", False)
    filled.pop("always_adapt", None)
    limit = filled.pop("max_weight_norm", None)
    for i, p in enumerate(mine):
        expected = lamb_by_the_formula(
            starts[i], [g[i].astype("float64") * grad_scale for g in grads], 0.01, limit=limit, adapt=adapt, **filled
        )
        assert p.dtype == dtype
        np.testing.assert_allclose(p.numpy(), expected, rtol=20 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_two_half_batches_accumulate_to_one():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 1))
    starts = [rng.standard_normal((3, 1)), rng.standard_normal(1)]

    def train(parts, per_step_scale):
        w, b = ours(starts)
        optimizer = AdamW([w, b], lr=0.1)
        for _ in range(5):
            for part in range(parts):
                rows = slice(part * 8 // parts, (part + 1) * 8 // parts)
                loss = ((minilm.tensor(x[rows]) @ w + b - minilm.tensor(y[rows])) ** 2).mean()
                (loss if per_step_scale else loss / parts).backward()
            optimizer.step(grad_scale=1 / parts if per_step_scale else 1.0)
            optimizer.zero_grad()
            assert w.grad is None
        return np.concatenate([w.numpy().ravel(), b.numpy()])

    whole = train(1, False)
    np.testing.assert_allclose(train(2, False), whole, rtol=1e-12)
    np.testing.assert_allclose(train(4, True), whole, rtol=1e-12)


def test_training_finds_the_least_squares_solution():
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((64, 4)), np.array([[1.0], [-2.0], [0.5], [3.0]])
    # LAMB is the coarsest: its step is a part of |w|, however near the goal.
    for kind, lr, tolerance in ((SGD, 0.05, 1e-6), (Adam, 0.1, 1e-6), (AdamW, 0.1, 1e-6), (LAMB, 0.05, 1e-2)):
        w = minilm.tensor(np.ones((4, 1)), requires_grad=True)
        settings = {} if kind is SGD else {"weight_decay": 0.0}
        optimizer = kind([w], lr=lr, **settings, **({"always_adapt": True} if kind is LAMB else {}))
        for step in range(400):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / 400)
            ((minilm.tensor(x) @ w - minilm.tensor(x @ target)) ** 2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        np.testing.assert_allclose(w.numpy(), target, atol=tolerance, err_msg=kind.__name__)
