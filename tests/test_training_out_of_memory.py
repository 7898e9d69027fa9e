"""A step that does not fit: what is advised, that it would fit, and that nothing was changed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minilm import backend, nn
from minilm.autograd import kept_bytes
from minilm.data import BatchLoader
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, make_schedule
from minilm.training import OutOfMemoryError, TrainConfig, Trainer
from minilm.training import out_of_memory as module

CONFIG = GPT2Config(
    vocab_size=50, n_positions=32, n_embd=32, n_layer=4, n_head=2, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1
)


class Small(GPT2):
    """A model on a machine with little memory: `budget` bytes for what the tape keeps."""

    budget = 0
    error: Exception = MemoryError()

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        if out.loss.requires_grad and kept_bytes(out.loss) > self.budget:
            raise self.error
        return out


def make(monkeypatch, rows_that_fit: float, batch_size=12, accumulation=2, **settings):
    model = Small(CONFIG, backend.Generator(0))
    backend.manual_seed(3)
    tokens = np.arange(3000) % 50
    batches = BatchLoader(tokens, batch_size=batch_size, context=32, seed=0)
    config = TrainConfig(steps=10, batch_size=batch_size, context=32, accumulation=accumulation, **settings)
    trainer = Trainer(model, AdamW(model.named_parameters()), make_schedule("constant", steps=10), batches, config)
    Small.budget = 2**40
    row = module._bytes_of_row(trainer, module_positions(trainer), "fp32")
    Small.budget = int(rows_that_fit * row)
    free = (rows_that_fit * row + module._still_to_come(trainer)) / module._USABLE
    monkeypatch.setattr(backend, "free_memory", lambda device: int(free) + 1)
    return trainer


def module_positions(trainer):
    from minilm.training.state import positions

    return positions(trainer)


def advice(trainer) -> str:
    with pytest.raises(OutOfMemoryError) as caught:
        trainer.train_step()
    return str(caught.value)


def test_the_advice_keeps_the_batch_and_fits(monkeypatch):
    trainer = make(monkeypatch, 7.5)
    before = module_positions(trainer)
    message = advice(trainer)
    assert "out of memory on cpu in step 1, at batch_size 12 and context 32" in message
    smaller, accumulation = map(
        int, re.search(r"--train.batch-size (\d+) --train.accumulation (\d+)", message).groups()
    )
    assert (smaller, accumulation) == (6, 4)
    assert "up to 7 rows fit" in message
    assert module_positions(trainer) == before
    assert all(p.grad is None for p in trainer.parameters)
    fits = make(monkeypatch, 7.5, smaller, accumulation)
    assert np.isfinite(fits.train_step()["loss"])


def test_recomputing_is_advised_with_what_it_brings(monkeypatch):
    trainer = make(monkeypatch, 7.5)
    message = advice(trainer)
    assert re.search(r"--recompute attention \(.* a row, so that", message)
    assert re.search(r"--recompute block \(.* a row, so that the batch fits\)", message)
    assert "--precision" not in message  # it saves nothing on the CPU
    assert trainer.model.transformer.h[0].recompute == "none"
    nn.set_recompute(trainer.model, "block")
    assert np.isfinite(trainer.train_step()["loss"])


def test_a_batch_that_should_fit_and_did_not_is_lowered(monkeypatch):
    trainer = make(monkeypatch, 7.5, accumulation=1)
    monkeypatch.setattr(backend, "free_memory", lambda device: 2**40)
    assert "--train.batch-size 6 --train.accumulation 2" in advice(trainer)


def test_what_the_driver_says_of_full_memory_is_understood(monkeypatch, cuda_standin):
    monkeypatch.setattr(Small, "error", RuntimeError("cudaErrorMemoryAllocation: out of memory"))
    assert "--train.batch-size 6 --train.accumulation 4" in advice(make(monkeypatch, 7.5))
    assert "not even a row of it fits" in advice(make(monkeypatch, 0))


def test_where_nothing_can_be_measured(monkeypatch):
    trainer = make(monkeypatch, 0)
    assert "not even a row of it fits: lower train.context or the model's size" in advice(trainer)
    trainer = make(monkeypatch, 7.5)
    monkeypatch.setattr(backend, "free_memory", lambda device: None)
    assert "try --train.batch-size 6 --train.accumulation 4" in advice(trainer)


def test_training_stops_with_the_advice(monkeypatch, tmp_path):
    trainer = make(monkeypatch, 3.5)
    with pytest.raises(OutOfMemoryError, match=r"--train\.batch-size 3 --train\.accumulation 8"):
        trainer.fit()
    assert trainer.step == 0


def test_what_is_free_and_in_use():
    free = backend.free_memory("cpu")
    assert free is None or 0 <= free < 2**50
    assert backend.memory_in_use("cpu") is None


@pytest.mark.gpu
def test_the_gpus_memory_is_told():
    import cupy

    model = GPT2(CONFIG, backend.Generator(0)).to("cuda")
    batches = BatchLoader(np.arange(3000) % 50, batch_size=4, context=32, seed=0)
    config = TrainConfig(steps=2, batch_size=4, context=32)
    trainer = Trainer(model, AdamW(model.named_parameters()), make_schedule("constant", steps=2), batches, config)
    assert trainer.train_step()["memory_gb"] > 0
    assert backend.free_memory("cuda") > 0
    huge = BatchLoader(np.arange(3000) % 50, batch_size=4 * 10**6, context=32, seed=0)
    trainer.batches, trainer.config = huge, TrainConfig(steps=2, batch_size=10**6, context=32)
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=2**32)  # other tests may run on the card beside this one
    try:
        with pytest.raises(OutOfMemoryError, match=r"--train.batch-size \d+ --train.accumulation \d+"):
            trainer.train_step()
    finally:
        pool.set_limit(size=0)
