"""The shapes of GPT-2 and of recurrent models that training steps are timed at, and a step of each library on one."""

from __future__ import annotations

import contextlib
import itertools
import os

import numpy as np

__all__ = [
    "SHAPES", "USUAL", "batches", "operations_per_step", "our_step", "tokens_per_step", "torch_step"
]  # fmt: skip

SHAPES = {
    "char-cpu": {
        "vocab_size": 65,
        "n_positions": 64,
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
        "batch": 12,
        "lr": 1e-3,
        "warmup": 100,
    },
    "medium": {
        "vocab_size": 65,
        "n_positions": 256,
        "n_embd": 384,
        "n_layer": 6,
        "n_head": 6,
        "batch": 8,
        "lr": 1e-3,
        "warmup": 100,
    },
    "gpt2-124m": {
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "batch": 4,
        "context": 64,
        "lr": 6e-4,
        "warmup": 2000,
    },
    "gpt2-124m-1024": {
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "batch": 12,
        "lr": 6e-4,
        "warmup": 2000,
    },
    "lstm": {"cell": "lstm", "hidden_size": 220},
    "gru": {"cell": "gru", "hidden_size": 254},
}
for name in ("lstm", "gru"):
    SHAPES[name] |= {"vocab_size": 65, "num_layers": 2, "context": 128, "batch": 16, "lr": 1e-3, "warmup": 100}
USUAL = {"cpu": ("char-cpu", "medium", "gpt2-124m"), "cuda": ("gpt2-124m-1024",)}
# Learning rates, and the steps over which they rise to them, are those that nanoGPT trains such models with.
OPTIMISER = {"betas": (0.9, 0.99), "eps": 1e-8}
WEIGHT_DECAY, MAX_NORM = 0.1, 1.0


def model_shape(shape: dict) -> dict:
    return {key: value for key, value in shape.items() if key not in ("batch", "context", "lr", "warmup")}


def set_learning_rate(optimiser, shape: dict, step: int) -> None:
    """The rate of step number `step`, counted from 1: rising in a line, then constant."""
    for group in optimiser.param_groups:
        group["lr"] = shape["lr"] * min(1.0, step / shape["warmup"])


def our_model(shape: dict):
    from minilm.backend import Generator
    from minilm.models import GPT2, GPT2Config, RecurrentConfig, RecurrentLM

    if "cell" in shape:
        return RecurrentLM(RecurrentConfig(**model_shape(shape)), Generator(0))
    return GPT2(GPT2Config(**model_shape(shape), resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), Generator(0))


def context(shape: dict) -> int:
    """The tokens of a row."""
    return shape.get("context") or shape["n_positions"]


def batches(shape: dict):
    """Endless (inputs, targets) of tokens with something to learn in them: a noisy repeating walk."""
    random = np.random.default_rng(1)
    rows, length = shape["batch"], context(shape)
    while True:
        walk = np.cumsum(random.integers(0, 3, (rows, length + 1)), axis=1) + random.integers(0, 1000, (rows, 1))
        ids = walk % shape["vocab_size"]
        yield ids[:, :-1], ids[:, 1:]


def our_step(shape: dict, device: str, precision: str, captured: bool):
    """As our training loop steps: on a GPU recorded as a graph, if `captured`."""
    from minilm import optim
    from minilm.backend import keep_objects, reuse_memory
    from minilm.training.captured_step import CapturedStep
    from minilm.training.step import TrainingStep

    reuse_memory()
    model = our_model(shape).to(device)
    optimiser = optim.AdamW(optim.decay_groups(model.named_parameters(), WEIGHT_DECAY), lr=shape["lr"], **OPTIMISER)
    kind = CapturedStep if captured else TrainingStep
    work = kind(model, optimiser, grad_clip=MAX_NORM, precision=precision)
    steps = itertools.count(1)
    kept = contextlib.ExitStack()

    def step(inputs, targets) -> float:
        number = next(steps)
        if number == 2:
            kept.enter_context(keep_objects())  # as our training loop does after its first step
        set_learning_rate(optimiser, shape, number)
        if number == 6 and work.refused is not None:
            print(f"our steps are not launched as one graph: {work.refused}", flush=True)
        return work([(inputs, targets)]).loss

    return step


def torch_step(shape: dict, device: str, precision: str):
    """As one would write it plainly, on a GPU compiled."""
    import torch
    from torch_gpt import TorchGPT
    from torch_recurrent import TorchRecurrent

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    model = (TorchRecurrent if "cell" in shape else TorchGPT)(**model_shape(shape))
    model.load_ours(our_model(shape).state_dict())
    model.to(device)
    run = torch.compile(model) if device == "cuda" else model
    fused = {"fused": True} if device == "cuda" else {}
    optimiser = torch.optim.AdamW(model.groups(WEIGHT_DECAY), lr=shape["lr"], **OPTIMISER, **fused)
    steps = itertools.count(1)

    def step(inputs, targets) -> float:
        set_learning_rate(optimiser, shape, next(steps))
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = run(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimiser.step()
        return loss.item()

    return step


def operations_per_step(shape: dict) -> float:
    """Floating-point operations of a step: 6 N a token for the weights, 12 L C T (half of it causal) for attention."""
    if "cell" in shape:
        gates, width = {"lstm": 4, "gru": 3}[shape["cell"]], shape["hidden_size"]
        return tokens_per_step(shape) * 6 * width * (2 * gates * shape["num_layers"] * width + shape["vocab_size"])
    width, layers = shape["n_embd"], shape["n_layer"]
    weights = 12 * layers * width**2 + shape["vocab_size"] * width
    return tokens_per_step(shape) * (6 * weights + 12 * layers * width * context(shape) / 2)


def tokens_per_step(shape: dict) -> int:
    return shape["batch"] * context(shape)
