"""The training loop: what it computes, what it says, and when it stops."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import TOKENS, VAL, losses, make

from minilm import nn, ops
from minilm.data import BatchLoader
from minilm.models import GPT2, GPT2Config
from minilm.optim import SGD, make_schedule
from minilm.training import Callback, DivergedError, MetricsFile, TrainConfig, Trainer, draw_loss


def test_a_model_learns_and_rows_say_so(tmp_path):
    trainer = make(tmp_path, steps=40, batch_size=8)
    assert trainer.fit() == "finished"
    assert trainer.history[-1]["val_loss"] < 0.8 * trainer.history[3]["val_loss"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == trainer.history
    assert [row["step"] for row in rows] == list(range(1, 41))
    for row in rows:
        assert {"step", "loss", "lr", "grad_norm", "tokens_per_second"} == set(row) - {"val_loss"}
    assert [row["step"] for row in rows if "val_loss" in row] == list(range(4, 41, 4))
    assert rows[0]["lr"] == pytest.approx(0.02 / 3)  # the first step of a warm-up of two


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make(steps=3).fit() == "finished"
    assert list(tmp_path.iterdir()) == []


def test_accumulated_batches_equal_one_big_batch():
    big, small = make(batch_size=8, optimizer=SGD, lr=0.5), make(batch_size=2, accumulation=4, optimizer=SGD, lr=0.5)
    big.fit(), small.fit()
    for a, b in zip(losses(big), losses(small)):
        assert a[1:3] == pytest.approx(b[1:3], rel=1e-5)
    for name, array in big.model.state_dict().items():
        np.testing.assert_allclose(array, small.model.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_the_validation_loss_is_the_mean_over_all_target_tokens():
    trainer = make()
    model = trainer.model.eval()
    total = sum(
        ops.cross_entropy(model(VAL[None, i : i + 8]).logits[0], VAL[i + 1 : i + 9], reduction="sum").item()
        for i in range(0, 112, 8)
    )
    rest = ops.cross_entropy(model(VAL[None, 112:119]).logits[0], VAL[113:120], reduction="sum").item()
    assert trainer.evaluate() == pytest.approx((total + rest) / 119, rel=1e-6)
    assert trainer.model.training
    part = make(eval_batches=2).evaluate()
    first = sum(
        ops.cross_entropy(model(VAL[None, i : i + 8]).logits[0], VAL[i + 1 : i + 9], reduction="sum").item()
        for i in range(0, 64, 8)
    )
    assert part == pytest.approx(first / 64, rel=1e-6)


def test_what_is_no_argument_of_a_trainer_is_said_before_the_first_step():
    model = GPT2(GPT2Config(16, 8, 8, 1, 2))
    optimizer, schedule = SGD(model.parameters(), lr=0.1), make_schedule("constant")
    batches = BatchLoader(TOKENS, 4, 8)
    for arguments, message in (
        ((optimizer, None, batches), "schedule is None"),
        ((optimizer, schedule, [batches.next_batch()]), "batches is a list, without next_batch, state, set_state"),
        ((model, schedule, batches), "optimizer is a GPT2"),
        ((optimizer, schedule, batches, {"steps": 2}), "config is a dict"),
    ):
        with pytest.raises(TypeError, match=message):
            Trainer(model, *arguments)
    with pytest.raises(TypeError, match="derives from Callback"):
        Trainer(model, optimizer, schedule, batches, callbacks=[print])
    trainer = Trainer(model, optimizer, schedule, batches)
    for call in (trainer.save, trainer.resume):
        with pytest.raises(ValueError, match="folder=PATH"):
            call()
    with pytest.raises(ValueError, match="val_tokens="):
        trainer.evaluate()


def test_a_model_that_gives_no_loss_is_told_what_to_give(tmp_path):
    class Logits(nn.Module):
        def __init__(self):
            self.config = {"plain": True}  # anything: only a Config goes into a checkpoint
            self.table = nn.Embedding(16, 16)

        def forward(self, ids, targets=None):
            return self.table(ids)

    class Loss(Logits):
        def forward(self, ids, targets=None):
            return SimpleNamespace(loss=ops.cross_entropy(self.table(ids), targets))

    def trainer(model, **settings):
        config = TrainConfig(steps=2, context=8)
        optimizer = SGD(model.parameters(), lr=0.1)
        return Trainer(model, optimizer, make_schedule("constant"), BatchLoader(TOKENS, 4, 8), config, **settings)

    with pytest.raises(TypeError, match=r"Logits\(inputs, targets=targets\) gave a Tensor.*as \.loss"):
        trainer(Logits()).fit()
    assert trainer(Loss(), val_tokens=VAL, folder=tmp_path).fit() == "finished"
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "step-2").glob("*.json")) == [
        "manifest.json",
        "state.json",
    ]


def test_overfitting_one_batch(tmp_path):
    trainer = make(tmp_path, steps=150, lr=0.05, overfit_one_batch=True)
    trainer.fit()
    assert trainer.history[-1]["loss"] < 0.05
    assert "val_loss" not in trainer.history[-1]
    other = make(tmp_path, steps=160, lr=0.05)
    with pytest.raises(ValueError, match=r"."):
        make(tmp_path, steps=160, overfit_one_batch=True, batch_size=8).resume()
    other.resume()  # the ordinary mode may follow: the position is the loader's
    assert other.step == 150


def test_averaged_weights_are_evaluated_and_kept_apart(tmp_path):
    trainer = make(tmp_path, ema_decay=0.5, steps=8)
    trainer.fit()
    own = trainer.model.transformer.wte.weight.numpy().copy()
    with trainer.averaged_weights():
        averaged = trainer.model.transformer.wte.weight.numpy().copy()
    assert not np.array_equal(own, averaged)
    assert np.array_equal(trainer.model.transformer.wte.weight.numpy(), own)
    with trainer.best_weights():
        assert np.array_equal(trainer.model.transformer.wte.weight.numpy(), averaged)
    trainer.ema, with_average = None, trainer.evaluate()
    assert trainer.evaluate() != with_average
    assert with_average == trainer.history[-1]["val_loss"]


def test_nan_stops_it_and_the_operation_is_named(tmp_path):
    class Poison(Callback):
        def on_step(self, trainer, row):
            if row["step"] == 6:  # from finite values on, a root of a negative number
                forward = trainer.model.forward

                def spoilt(ids, **rest):
                    out = forward(ids, **rest)
                    out.loss = ops.sqrt(out.loss - 1000.0)
                    return out

                trainer.model.forward = spoilt

    trainer = make(tmp_path, callbacks=[Poison()])
    with np.errstate(invalid="ignore"), pytest.raises(DivergedError, match=r"(?s)step 7 gave loss nan.*sqrt.*step-4"):
        trainer.fit()
    assert trainer.step == 6
    assert [row["step"] for row in MetricsFile(tmp_path / "metrics.jsonl").read()] == list(range(1, 7))
    assert all(parameter.grad is None for parameter in trainer.parameters)
    assert make(tmp_path).resume().name == "step-4"


def test_weights_that_were_spoilt_are_named():
    trainer = make()
    trainer.model.transformer.h[0].mlp.c_fc.bias.data[0] = np.nan
    with pytest.raises(
        DivergedError, match=r"step 1 gave loss nan.*weights held NaN.*transformer\.h\.0\.mlp\.c_fc\.bias"
    ):
        trainer.train_step()
    assert trainer.batches.position == 0


def test_too_high_a_learning_rate_stops_before_the_weights_are_spoilt():
    trainer = make(lr=1e30, optimizer=SGD, grad_clip=0, schedule="constant", eval_interval=1000)
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match=r"step \d+ gave .*Lower the learning rate"):
        trainer.fit()


def test_clipping_limits_the_step():
    clipped, free = (make(optimizer=SGD, lr=1.0, grad_clip=clip, schedule="constant") for clip in (1e-3, 0))
    start = {name: array.copy() for name, array in clipped.model.state_dict().items()}
    clipped.train_step(), free.train_step()

    def moved(trainer):
        return math.sqrt(sum(((start[n] - a).astype("f8") ** 2).sum() for n, a in trainer.model.state_dict().items()))

    assert moved(clipped) == pytest.approx(1e-3, rel=1e-2)
    assert moved(free) == pytest.approx(free.optimizer.param_groups[0]["lr"] * _norm(free), rel=1e-3)


def _norm(trainer):
    again = make(optimizer=SGD, lr=1.0, grad_clip=0, schedule="constant")
    return again.train_step()["grad_norm"]


def test_rows_are_read_up_to_what_is_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n\xff\xfe\n{"step": 4, "loss": 1.0}\n{"st')
    metrics = MetricsFile(path)
    assert [row["step"] for row in metrics.read()] == [1, 2]
    assert [row["step"] for row in metrics.cut_after(1)] == [1]
    metrics.write({"step": 2, "loss": 1.25})
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.25}\n'
    with pytest.raises(ValueError, match="JSON"):
        metrics.write({"step": 3, "loss": math.nan})
    metrics.close()


def test_the_losses_are_drawn(tmp_path):
    rows = [{"step": i, "loss": 4 / i} | ({"val_loss": 4.2 / i} if i % 5 == 0 else {}) for i in range(1, 21)]
    small = draw_loss(rows[:3], tmp_path / "a.png").read_bytes()
    large = draw_loss(rows, tmp_path / "b.png").read_bytes()
    assert small[:8] == large[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(large) > len(small)  # a second curve
    assert draw_loss([], tmp_path / "c.png").is_file()


def test_the_mean_of_the_losses_does_not_lag():
    """A loss that falls at one rate is its own mean, to the ends of the run."""
    from minilm.training.metrics import _smoothed

    falling = [5 - 0.01 * step for step in range(250)]
    means, width = _smoothed(falling)
    assert width == 5
    np.testing.assert_allclose(means, falling, rtol=1e-12)
    assert abs(_smoothed([1.0, -1.0] * 500)[0][10:-10]).max() < 0.1
    assert _smoothed([])[0].size == 0
