"""Training in low precision: near float32, with float32 weights; scaled losses, skipped steps, and going on."""

from __future__ import annotations

import copy
import json
import math

import minilm_kernels
import numpy as np
import pytest
from minilm_kernels.cross_entropy import reference as cross_entropy_reference

from minilm import backend, nn
from minilm.autograd import PRECISIONS
from minilm.cli.main import main
from minilm.data import BatchLoader
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, GradScaler, make_schedule
from minilm.training import Config, ConfigError, DivergedError, Run, TrainConfig, Trainer, merge, preset

SHAPE = {"vocab_size": 17, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
LOW = ["bf16", "fp16"]


def make(folder=None, *, seed=0, precision="fp32", steps=30, dropout=0.0, device="cpu", recompute="none", **settings):
    """A trainer of a small model on tokens that can be learnt in part."""
    dropped = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    model = GPT2(GPT2Config(**SHAPE, **dropped), backend.Generator(seed)).to(device)
    nn.set_recompute(model, recompute)
    backend.manual_seed(seed)
    tokens = np.random.default_rng(0).integers(0, 3, 4000).cumsum() % 17
    batches = BatchLoader(tokens, batch_size=8, context=16, seed=seed)
    config = TrainConfig(steps=steps, batch_size=8, context=16, eval_interval=10, **settings)
    optimizer = AdamW(model.named_parameters(), lr=1e-2)
    schedule = make_schedule("constant", steps=steps)
    return Trainer(
        model, optimizer, schedule, batches, config, val_tokens=tokens[:500], precision=precision, folder=folder
    )


def losses(trainer) -> np.ndarray:
    trainer.fit()
    return np.array([row["loss"] for row in trainer.history])


@pytest.fixture(scope="module")
def plain() -> list[np.ndarray]:
    """Losses of float32 runs from several seeds."""
    return [losses(make(seed=seed)) for seed in range(3)]


@pytest.mark.parametrize("precision", LOW)
def test_losses_stay_within_the_spread_of_float32_runs(plain, precision):
    found = losses(make(precision=precision))
    assert found[-1] < found[0] - 0.5
    spread = np.std([run[-10:].mean() for run in plain], ddof=1)
    assert 0 < abs(found[-10:].mean() - plain[0][-10:].mean()) < spread


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
def test_losses_of_200_steps_stay_within_the_spread_on_a_gpu(precision):
    runs = [losses(make(seed=seed, steps=200, device="cuda"))[-50:].mean() for seed in range(4)]
    found = losses(make(steps=200, device="cuda", precision=precision))[-50:].mean()
    assert abs(found - runs[0]) < np.std(runs, ddof=1)


@pytest.mark.parametrize("precision", LOW)
def test_weights_and_the_optimisers_state_stay_float32(tmp_path, precision):
    trainer = make(tmp_path, precision=precision, steps=2)
    trainer.fit()
    assert {p.dtype.name for p in trainer.parameters} == {"float32"}
    assert {a.dtype.name for a in trainer.optimizer.state_dict()["arrays"].values()} == {"float32"}
    assert "val_loss" in trainer.history[-1]


def _too_steep(trainer):
    """Has the loss scale be one that gradients overflow at."""
    trainer.work.scaler.scale = 2.0**40


def test_logits_of_16_bits_are_never_copied_in_float32(cuda_standin, monkeypatch):
    made, astype = [], cuda_standin.ndarray.astype

    def noted(array, dtype, **settings):
        made.append((array.size, np.dtype(dtype).name))
        return astype(array, dtype, **settings)

    monkeypatch.setattr(cuda_standin.ndarray, "astype", noted)
    monkeypatch.setattr(cross_entropy_reference, "wide", lambda logits: logits.dtype)  # the kernel's business
    make(device="cuda", precision="bf16").train_step()
    assert (17 * 32, "bfloat16") in made  # the output layer's weight
    assert (8 * 16 * 17, "float32") not in made


def test_an_overflow_is_skipped_and_halves_the_scale():
    trainer = make(precision="fp16", steps=40)
    trainer.train_step()
    before = copy.deepcopy(trainer.model.state_dict())
    state = {name: array.copy() for name, array in trainer.optimizer.state_dict()["arrays"].items()}
    _too_steep(trainer)
    row = trainer.train_step()
    assert row["grad_norm"] is None
    assert (row["loss_scale"], row["skipped_steps"]) == (2.0**39, 1)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    for name, array in trainer.optimizer.state_dict()["arrays"].items():
        np.testing.assert_array_equal(array, state[name])
    assert set(trainer.optimizer.state_dict()["settings"]["steps"].values()) == {1}
    rows = [trainer.train_step() for _ in range(30)]
    taken = [row["grad_norm"] is not None for row in rows]
    assert taken[-1]
    assert rows[-1]["loss_scale"] == 2.0 ** (39 - taken.count(False))


def test_gradients_that_overflow_at_any_scale_stop_it():
    trainer = make(precision="fp16")
    trainer.work.scaler.scale = 2.0**-8
    trainer.model.transformer.ln_f.weight.register_hook(lambda g: g * np.float32(np.inf))
    with np.errstate(invalid="ignore"), pytest.raises(DivergedError, match="step 1 gave gradient norm"):
        trainer.train_step()


def test_a_loss_that_is_not_finite_stops_it_in_float16_too():
    trainer = make(precision="fp16")
    trainer.model.transformer.wte.weight.data[:] = np.nan
    with pytest.raises(DivergedError, match="held NaN or infinity before the step"):
        trainer.train_step()


@pytest.mark.parametrize("precision", LOW)
def test_a_run_stopped_and_gone_on_with_is_the_run_never_stopped(tmp_path, precision):
    settings = {"precision": precision, "dropout": 0.1, "checkpoint_interval": 4, "recompute": "block"}

    def begin(folder):
        folder.mkdir(exist_ok=True)
        trainer = make(folder, **settings, steps=12)
        if trainer.work.scaler:
            trainer.work.scaler.scale, trainer.work.scaler.growth_interval = 2.0**30, 3
        return trainer

    whole = begin(tmp_path / "whole")
    whole.fit()
    part = begin(tmp_path / "part")
    for _ in range(8):
        part._advance(type("", (), {"received": None}))
    part.metrics.close()
    again = begin(tmp_path / "part")
    again.resume()
    assert again.step == 8
    again.fit()
    for name in ("loss", "grad_norm", "loss_scale"):
        assert [row.get(name) for row in again.history] == [row.get(name) for row in whole.history]
    if whole.work.scaler:
        assert again.work.scaler.state_dict() == whole.work.scaler.state_dict()
        assert whole.work.scaler.skipped
    np.testing.assert_array_equal(
        again.model.transformer.wte.weight.numpy(), whole.model.transformer.wte.weight.numpy()
    )


def test_the_precision_may_change_on_the_way(tmp_path):
    make(tmp_path, steps=3).fit()
    trainer = make(tmp_path, steps=5, precision="fp16")
    trainer.resume()
    assert trainer.fit() == "finished"
    make(tmp_path, steps=7, precision="bf16").resume()


def test_recomputing_changes_no_bit_of_a_run():
    plain = losses(make(dropout=0.1, steps=5))
    for what in ("attention", "block"):
        np.testing.assert_array_equal(losses(make(dropout=0.1, steps=5, recompute=what)), plain)


def test_the_scaler_follows_torchs_rule(torch):
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    ours = GradScaler(1024.0, growth_interval=3)
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for finite in (True, True, True, True, False, False, True, True, False, True, True, True, True):
        theirs.scale(w.sum() * (1.0 if finite else float("inf"))).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(finite)
        assert ours.scale == theirs.get_scale()


def test_what_the_scaler_refuses():
    for wrong in ({"scale": 0}, {"growth_factor": 1}, {"backoff_factor": 1}, {"growth_interval": 0}):
        with pytest.raises(ValueError, match="expected a positive scale"):
            GradScaler(**wrong)
    with pytest.raises(TypeError, match=r"growth_interval is 1\.5; expected a whole number"):
        GradScaler(growth_interval=1.5)
    with pytest.raises(ValueError, match="scale is inf"):
        GradScaler(math.inf)
    with pytest.raises(ValueError, match=r"scale is -2\.0; expected more than 0"):
        GradScaler().load_state_dict({"scale": -2.0, "finite_steps": 0, "skipped": 0})
    with pytest.raises(TypeError, match="scale is 'cuda'; expected a number"):
        GradScaler("cuda")
    with pytest.raises(ValueError, match="the state of a GradScaler has"):
        GradScaler().load_state_dict({"scale": 2.0})


def test_settings_that_can_not_be():
    for settings, match in (({"precision": "fp8"}, "one of fp32, tf32, bf16, fp16"), ({"recompute": "all"}, "one of")):
        with pytest.raises(ConfigError, match=match):
            Config.from_dict(settings).check()
    with pytest.raises(ValueError, match="'tf32' is how a GPU multiplies float32, and the device is 'cpu'"):
        make(precision="tf32")


def test_a_run_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(minilm_kernels, "compile_ahead", lambda: None)
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 200)
    with pytest.raises(ConfigError, match="tf32"):
        Run.start(merge(preset("tiny"), {"data": str(text), "device": "cpu", "precision": "tf32"}), tmp_path / "none")
    arguments = ["train", "--preset", "tiny", "--data", str(text), "--device", "cpu", "--train.steps", "3"]
    arguments += ["--optim.warmup-steps", "0"]
    arguments += ["--precision", "bf16", "--recompute", "attention", "--output-dir", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert "bf16 on the CPU is float32 that is rounded" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (settings["precision"], settings["recompute"]) == ("bf16", "attention")
    assert main(["generate", str(tmp_path / "run"), "--max-new-tokens", "3", "--precision", "fp16"]) == 0
    assert "fp16 on the CPU" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "run"), "--precision", "tf32", "--device", "cpu"]) == 1
    assert "use --device cuda" in capsys.readouterr().err
