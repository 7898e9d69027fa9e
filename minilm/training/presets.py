"""Settings that are known to work, by name."""

from __future__ import annotations

import difflib
from dataclasses import replace

from .config import Config, ConfigError, ModelConfig, OptimConfig, TrainConfig

__all__ = ["PRESETS", "needs_data", "preset"]

# The description is what `minilm train --help` says of it.
PRESETS: dict[str, tuple[str, Config]] = {
    "default": (
        "a small GPT on the Python standard library's source: a few minutes on two cores",
        Config(
            preset="default",
            tokenizer="bpe",
            vocab_size=1024,
            model=ModelConfig(n_layer=4, n_head=4, n_embd=128, n_positions=256),
            optim=OptimConfig(lr=4e-3, min_lr=2e-4, warmup_steps=100),
            train=TrainConfig(
                steps=1800,
                batch_size=8,
                context=128,
                eval_interval=300,
                eval_batches=64,
                sample_tokens=128,
                sample_prompt="def main(",
            ),
        ),
    ),
    "shakespeare-char-cpu": (
        "nanoGPT's character-level Shakespeare for CPUs, the same setting (--data input.txt)",
        Config(
            preset="shakespeare-char-cpu",
            tokenizer="char",
            model=ModelConfig(n_layer=4, n_head=4, n_embd=128, n_positions=64),
            optim=OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=100, decay_embeddings=True),
            train=TrainConfig(steps=2000, batch_size=12, context=64, eval_interval=250),
        ),
    ),
    "shakespeare-char": (
        "nanoGPT's character-level Shakespeare: 10M parameters, for a GPU or a patient CPU (--data input.txt)",
        Config(
            preset="shakespeare-char",
            tokenizer="char",
            model=ModelConfig(n_layer=6, n_head=6, n_embd=384, n_positions=256, dropout=0.2),
            optim=OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=100, decay_embeddings=True),
            train=TrainConfig(steps=5000, batch_size=64, context=256, eval_interval=250),
        ),
    ),
    "gpt2": (
        "GPT-2 124M from scratch on your text, half a million tokens a step",
        Config(
            preset="gpt2",
            tokenizer="bpe",
            vocab_size=50257,
            model=ModelConfig(n_layer=12, n_head=12, n_embd=768, n_positions=1024),
            optim=OptimConfig(lr=6e-4, min_lr=6e-5, warmup_steps=2000, beta2=0.95, decay_embeddings=True),
            train=TrainConfig(
                steps=600_000, batch_size=4, context=1024, accumulation=120, eval_interval=1000, eval_batches=200
            ),
        ),
    ),
    "tiny": (
        "a model that trains in seconds, to try things out",
        Config(
            preset="tiny",
            tokenizer="byte",
            model=ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64),
            optim=OptimConfig(lr=3e-3, min_lr=3e-4, warmup_steps=10),
            train=TrainConfig(steps=60, batch_size=8, context=32, eval_interval=20, eval_batches=100, sample_tokens=32),
        ),
    ),
}


def preset(name: str) -> Config:
    """The preset of that name; ConfigError (with the nearest name) if there is none.

    >>> preset("shakespeare-char-cpu").train.steps
    2000
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no preset {name!r}; {hint}There are: {', '.join(PRESETS)}")
    return replace(PRESETS[name][1])


def needs_data(name: str) -> bool:
    """Whether a preset is for a text that has to be named; the others make do with the standard library's source.

    >>> needs_data("shakespeare-char"), needs_data("default")
    (True, False)
    """
    return name.startswith("shakespeare")
