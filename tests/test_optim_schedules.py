"""Learning-rate schedules: against torch's where it has them, and against their formulas."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm
from minilm.optim import (
    SCHEDULES,
    SGD,
    AdamW,
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Plateau,
    Schedule,
    Warmup,
    WarmupStableDecay,
    make_schedule,
)


def optimizer_of(*rates):
    groups = [{"params": [minilm.tensor([1.0], requires_grad=True)], "lr": rate} for rate in rates]
    return SGD(groups, lr=1.0)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def torch_optimizer(*rates):
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return torch, torch.optim.SGD(groups, lr=1.0)


def nanogpt(it, learning_rate, min_lr, warmup_iters, lr_decay_iters):
    """The schedule of nanoGPT's train.py, from its description."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


def test_cosine_with_warmup_is_nanogpts():
    schedule = make_schedule("cosine", steps=100, warmup=10, min_factor=0.1)
    optimizer = optimizer_of(6e-4, 1e-3)
    for step in range(130):
        schedule.apply(optimizer, step)
        expected = [nanogpt(step, rate, rate * 0.1, 10, 100) for rate in (6e-4, 1e-3)]
        assert rates(optimizer) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear", "lambda"])
def test_schedules_that_torch_has(name):
    torch, oracle = torch_optimizer(0.5, 0.02)
    schedulers = torch.optim.lr_scheduler
    if name == "cosine":
        # torch's floor is a rate, ours a factor: they agree where it is zero.
        theirs, schedule = schedulers.CosineAnnealingLR(oracle, T_max=20), Cosine(20)
    elif name == "linear":
        theirs = schedulers.LinearLR(oracle, start_factor=1.0, end_factor=0.25, total_iters=20)
        schedule = Linear(20, min_factor=0.25)
    else:
        schedule = Warmup(InverseSqrt(5), 3)
        theirs = schedulers.LambdaLR(oracle, schedule)  # a schedule is such a function
    mine = optimizer_of(0.5, 0.02)
    for step in range(21):
        assert schedule.apply(mine, step) == schedule(step)
        assert rates(mine) == pytest.approx(theirs.get_last_lr(), rel=1e-9, abs=1e-15)
        oracle.step()
        theirs.step()


def test_closed_forms():
    for step in range(200):
        assert Constant()(step) == 1.0
        n, k = step + 1, 40
        # Noam's formula for a model of width 64, over its peak.
        noam = 64**-0.5 * min(n**-0.5, n * k**-1.5)
        assert InverseSqrt(k)(step) == pytest.approx(noam / (64**-0.5 * k**-0.5), rel=1e-12)
        assert InverseSqrt(k, flat=True)(step) == pytest.approx(1 / math.sqrt(max(n, k)) * math.sqrt(k), rel=1e-12)
        assert InverseSqrt(k, flat=True, min_factor=0.8)(step) == max(InverseSqrt(k, flat=True)(step), 0.8)
        x = max(0, min(1, (step - 70) / 30))
        for shape, part in (("linear", 1 - x), ("cosine", (1 + math.cos(math.pi * x)) / 2), ("1-sqrt", 1 - x**0.5)):
            schedule = WarmupStableDecay(100, decay=30, min_factor=0.2, shape=shape)
            assert schedule(step) == pytest.approx(0.2 + 0.8 * part, rel=1e-12)
    assert WarmupStableDecay(100).decay == 20
    assert WarmupStableDecay(3).decay == 1


def test_wsd_with_warmup_ends_with_the_run():
    schedule = make_schedule("wsd", steps=100, warmup=10, decay=20, shape="1-sqrt")
    assert [schedule(step) for step in (9, 10, 80, 100)] == [pytest.approx(10 / 11), 1.0, 1.0, 0.0]
    assert 0 < schedule(99) < schedule(81) < 1


@pytest.mark.parametrize("name", SCHEDULES)
@given(st.integers(1, 60), st.integers(0, 30), st.floats(0, 1))
def test_all_rise_while_they_warm_up_and_never_after(name, length, warmup, min_factor):
    warmup = max(warmup, 1) if name == "inverse_sqrt" else warmup
    schedule = make_schedule(name, steps=warmup + length, warmup=warmup, min_factor=min_factor)
    factors = [schedule(step) for step in range(warmup + length + 20)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(a < b for a, b in itertools.pairwise(factors[: max(warmup, 1)]))
    after = factors[warmup:]
    assert after[0] == 1.0 or name == "inverse_sqrt"
    assert all(a >= b for a, b in itertools.pairwise(after))
    assert all(factor >= min_factor * (1 - 1e-12) for factor in after)
    if name in ("linear", "cosine", "wsd"):
        assert factors[warmup + length :] == pytest.approx([min_factor] * 20, abs=1e-12)


def test_the_base_rate_is_kept_and_saved():
    optimizer = AdamW([minilm.tensor([1.0], requires_grad=True)], lr=0.4)
    schedule = make_schedule("linear", steps=10)
    schedule.apply(optimizer, 5)
    assert rates(optimizer) == [0.2]
    resumed = AdamW([minilm.tensor([1.0], requires_grad=True)], lr=0.4)
    resumed.load_state_dict(optimizer.state_dict())
    assert rates(resumed) == [0.2]
    schedule.apply(resumed, 6)
    assert rates(resumed) == [pytest.approx(0.16)]


PLATEAUS = [
    {},
    {"patience": 0, "factor": 0.3},
    {"mode": "max", "patience": 2, "cooldown": 3},
    {"threshold": 0.5, "threshold_mode": "abs", "patience": 1},
    {"threshold": 0.1, "threshold_mode": "abs", "mode": "max", "patience": 1, "cooldown": 1},
    {"factor": 0.5, "patience": 0, "threshold": 0.2, "min_factor": 0.05},
]


@pytest.mark.parametrize("settings", PLATEAUS, ids=str)
def test_plateau_is_torchs(settings):
    metrics = [3.0, 2.5, 2.6, 2.4999, 2.49, math.nan, 2.0, 2.2, 2.3, -1.0, -1.05, -0.5, math.inf, -2.0]
    metrics = (metrics + [2.0, 3.0] * 10 + metrics) * 2
    _, oracle = torch_optimizer(0.5, 0.02)
    options = {key: value for key, value in settings.items() if key != "min_factor"}
    floor = settings.get("min_factor", 0.0)
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    theirs = ReduceLROnPlateau(oracle, min_lr=[0.5 * floor, 0.02 * floor], eps=0.0, **options)
    schedule, mine = Plateau(**settings), optimizer_of(0.5, 0.02)
    for step, metric in enumerate(metrics):
        schedule.observe(metric)
        theirs.step(metric)
        schedule.apply(mine, step)
        assert rates(mine) == pytest.approx([group["lr"] for group in oracle.param_groups], rel=1e-9)
        # Resuming after every evaluation makes no difference.
        saved = json.loads(json.dumps(schedule.state_dict()))
        schedule = Plateau(**settings)
        schedule.load_state_dict(saved)
    assert schedule(0) < 1


def test_plateau_can_follow_a_warmup():
    schedule = make_schedule("plateau", warmup=4, patience=0, factor=0.5)
    assert schedule(0) == pytest.approx(0.2)
    for metric in (1.0, 1.0):
        schedule.observe(metric)
    assert schedule(4) == 0.5
    other = make_schedule("plateau", warmup=4, patience=0, factor=0.5)
    other.load_state_dict(schedule.state_dict())
    assert other(10) == 0.5


def test_schedules_without_state_take_evaluations_and_save_nothing():
    schedule = make_schedule("cosine", steps=10, warmup=2)
    schedule.observe(1.0)
    assert schedule.state_dict() == {}
    schedule.load_state_dict({})
    with pytest.raises(ValueError, match="Cosine has no state; the state given has best"):
        schedule.load_state_dict({"best": 1})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: make_schedule("cosin", steps=10), ValueError, "no schedule is named 'cosin'; there are: constant, "),
        (lambda: make_schedule("cosine"), ValueError, "'cosine' needs steps"),
        (lambda: make_schedule("cosine", steps=5, warmup=5), ValueError, "steps is 5 and warmup 5; the run has to be"),
        (
            lambda: make_schedule("cosine", steps=5, decay=2),
            TypeError,
            "'cosine' has no option 'decay'; it has: steps, warmup, min_factor",
        ),
        (lambda: make_schedule("wsd", steps=5, flat=True), TypeError, "'flat'; it has: decay, shape"),
        (lambda: make_schedule("constant", steps=-1), ValueError, "steps is -1; expected 1 or more"),
        (lambda: make_schedule("constant", warmup=-1), ValueError, "warmup is -1; expected 0 or more"),
        (lambda: make_schedule("constant", min_factor=2), ValueError, "min_factor is 2.0; expected a number from 0"),
        (lambda: make_schedule("inverse_sqrt"), ValueError, "warmup is 0; expected 1 or more"),
        (lambda: Linear(0), ValueError, "steps is 0; expected 1 or more"),
        (lambda: Linear(2.5), TypeError, "steps is 2.5; expected a whole number"),
        (lambda: Cosine(10, min_factor=-0.1), ValueError, "min_factor is -0.1"),
        (lambda: WarmupStableDecay(10, decay=11), ValueError, "decay is 11 steps of 10"),
        (lambda: WarmupStableDecay(10, shape="cube"), ValueError, "shape is 'cube'; expected one of 'linear'"),
        (lambda: InverseSqrt(4, flat=1), TypeError, "flat is 1; expected True or False"),
        (lambda: Warmup(lambda step: 1.0, 4), TypeError, "schedule is a function; expected the Schedule"),
        (lambda: Constant()(-1), ValueError, "step is -1"),
        (lambda: Schedule()(0), NotImplementedError, "Schedule has to define factor"),
        (lambda: Plateau(1.0), ValueError, "factor is 1"),
        (lambda: Plateau(2.0), ValueError, "factor is 2.0"),
        (lambda: Plateau(patience=-1), ValueError, "patience is -1"),
        (lambda: Plateau(threshold_mode="relative"), ValueError, "threshold_mode is 'relative'; expected 'rel' or"),
        (lambda: Plateau(mode="least"), ValueError, "mode is 'least'; expected 'min' or 'max'"),
        (lambda: Plateau().observe("low"), TypeError, "metric is 'low'; expected a number"),
        (lambda: Plateau().load_state_dict({"best": 1}), ValueError, "expected the state scale, .*; got best"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_schedule_in_a_dict_is_refused():
    with pytest.raises(TypeError, match=r"name is a dict; expected one of constant, .*, and options by name"):
        make_schedule({"name": "cosine"})
