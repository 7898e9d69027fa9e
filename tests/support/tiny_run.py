"""A training run of seconds, and callbacks that watch it."""

from __future__ import annotations

import os
import signal

import numpy as np

from minilm import backend
from minilm.data import BatchLoader
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, make_schedule
from minilm.training import Callback, TrainConfig, Trainer

__all__ = ["TOKENS", "VAL", "Notices", "StopAt", "losses", "make"]

TOKENS = np.random.default_rng(0).integers(0, 16, 40).repeat(20)[:600]
VAL = TOKENS[:120]


def make(folder=None, *, dropout=0.0, lr=0.02, batch_size=4, optimizer=AdamW, schedule="cosine", **settings):
    callbacks = settings.pop("callbacks", ())
    config = TrainConfig(**{"steps": 12, "context": 8, "eval_interval": 4, "batch_size": batch_size} | settings)
    shape = GPT2Config(16, 8, 8, 1, 2, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    model = GPT2(shape, backend.Generator(1))
    backend.default_generator.seed(2)
    return Trainer(
        model,
        optimizer(model.named_parameters(), lr=lr),
        make_schedule(schedule, steps=config.steps, warmup=2) if schedule == "cosine" else make_schedule(schedule),
        BatchLoader(TOKENS, batch_size, 8, seed=3),
        config,
        val_tokens=VAL,
        folder=folder,
        callbacks=callbacks,
    )


def losses(trainer):
    return [(row["step"], row["loss"], row["grad_norm"], row["lr"], row.get("val_loss")) for row in trainer.history]


class StopAt(Callback):
    """Sends this process a signal after a step, as Ctrl-C would."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_step(self, trainer, row):
        if row["step"] == self.step:
            os.kill(os.getpid(), self.number)


class Notices(Callback):
    def __init__(self):
        self.messages = []

    def on_notice(self, trainer, message):
        self.messages.append(message)
