"""Optimisers, learning-rate schedules, gradient clipping and averages of weights.

A training step, with gradients accumulated over micro-batches, clipped and scheduled:

    optimizer = AdamW(decay_groups(model.named_parameters(), weight_decay=0.1), lr=6e-4, betas=(0.9, 0.95))
    schedule = make_schedule("cosine", steps=5000, warmup=100, min_factor=0.1)
    for step in range(5000):
        schedule.apply(optimizer, step)
        for inputs, targets in micro_batches:           # backward adds to .grad: accumulation needs nothing else
            (model(inputs, targets=targets).loss / len(micro_batches)).backward()
        norm = grad_norm(model.parameters())
        optimizer.step(grad_scale=clip_coefficient(norm, 1.0))  # clips without a pass of its own
        optimizer.zero_grad()
"""

from .adam import Adam, AdamW
from .captured import CapturedUpdate
from .clip import clip_coefficient, clip_grad_norm, clip_grad_value, grad_norm
from .ema import EMA
from .grad_scaler import GradScaler
from .groups import decay_groups, is_embedding
from .lamb import LAMB
from .optimizer import Batch, Optimizer
from .plateau import Plateau
from .registry import SCHEDULES, make_schedule
from .schedules import Constant, Cosine, InverseSqrt, Linear, Schedule, Warmup, WarmupStableDecay
from .sgd import SGD

__all__ = [
    "EMA",
    "LAMB",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "Batch",
    "CapturedUpdate",
    "Constant",
    "Cosine",
    "GradScaler",
    "InverseSqrt",
    "Linear",
    "Optimizer",
    "Plateau",
    "Schedule",
    "Warmup",
    "WarmupStableDecay",
    "clip_coefficient",
    "clip_grad_norm",
    "clip_grad_value",
    "decay_groups",
    "grad_norm",
    "is_embedding",
    "make_schedule",
]
