"""A whole training step (forward, backward, clipping, AdamW): ours and a plain torch GPT's of the same shape.

    python benchmarks/train_step.py [--shapes char-cpu,medium,gpt2-124m] [--rounds 15] [--losses 100] [--save FILE]

Each library runs in its own process, so that neither's allocator or threads serve the other and each has its own peak
of memory; the two step in turn, so that drift of the machine cancels. Both start from the same weights and see the
same batches. Without torch only our rows are printed. `--losses N` compares the first N losses instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import machine
import numpy as np

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
}
# Learning rates, and the steps over which they rise to them, are those that nanoGPT trains such models with.
OPTIMISER = {"betas": (0.9, 0.99), "eps": 1e-8}
WEIGHT_DECAY, MAX_NORM = 0.1, 1.0


def model_shape(shape: dict) -> dict:
    return {key: value for key, value in shape.items() if key not in ("batch", "context", "lr", "warmup")}


def set_learning_rate(optimiser, shape: dict, step: int) -> None:
    """The rate of step number `step`, counted from 1: rising in a line, then constant."""
    for group in optimiser.param_groups:
        group["lr"] = shape["lr"] * min(1.0, step / shape["warmup"])


def initial_weights(shape: dict) -> dict:
    from minilm.backend import Generator
    from minilm.models import GPT2, GPT2Config

    return GPT2(GPT2Config(**model_shape(shape)), Generator(0)).state_dict()


def batches(shape: dict):
    """Endless (inputs, targets) of tokens with something to learn in them: a noisy repeating walk."""
    random = np.random.default_rng(1)
    rows, length = shape["batch"], shape.get("context", shape["n_positions"])
    while True:
        walk = np.cumsum(random.integers(0, 3, (rows, length + 1)), axis=1) + random.integers(0, 1000, (rows, 1))
        ids = walk % shape["vocab_size"]
        yield ids[:, :-1], ids[:, 1:]


def our_step(shape: dict):
    from minilm import optim
    from minilm.backend import keep_objects, reuse_memory
    from minilm.models import GPT2, GPT2Config

    reuse_memory()
    model = GPT2(GPT2Config(**model_shape(shape), resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    model.load_state_dict(initial_weights(shape))
    optimiser = optim.AdamW(optim.decay_groups(model.named_parameters(), WEIGHT_DECAY), lr=shape["lr"], **OPTIMISER)
    parameters = list(model.parameters())
    steps = itertools.count(1)

    kept = contextlib.ExitStack()

    def step(inputs, targets) -> float:
        number = next(steps)
        if number == 2:
            kept.enter_context(keep_objects())  # as our training loop does after its first step
        set_learning_rate(optimiser, shape, number)
        optimiser.zero_grad()
        loss = model(inputs, targets=targets).loss
        loss.backward()
        norm = optim.grad_norm(parameters)
        optimiser.step(grad_scale=optim.clip_coefficient(norm, MAX_NORM))
        return loss.item()

    return step


def torch_step(shape: dict):
    import torch
    from torch_gpt import TorchGPT

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = TorchGPT(**model_shape(shape))
    model.load_ours(initial_weights(shape))
    optimiser = torch.optim.AdamW(model.groups(WEIGHT_DECAY), lr=shape["lr"], **OPTIMISER)
    steps = itertools.count(1)

    def step(inputs, targets) -> float:
        set_learning_rate(optimiser, shape, next(steps))
        optimiser.zero_grad()
        loss = model(torch.from_numpy(inputs), torch.from_numpy(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimiser.step()
        return loss.item()

    return step


def worker(connection, library: str, shape: dict) -> None:
    """Runs steps as asked: a number comes in, (losses, seconds of each step, peak bytes) goes back."""
    step = {"minilm": our_step, "torch": torch_step}[library](shape)
    from minilm.backend import peak_memory  # after torch, whose threads so have the settings that they have alone

    source = batches(shape)
    while (count := connection.recv()) is not None:
        losses, seconds = [], []
        for _ in range(count):
            inputs, targets = next(source)
            start = time.perf_counter()
            losses.append(step(inputs, targets))
            seconds.append(time.perf_counter() - start)
        connection.send((losses, seconds, peak_memory()))


def operations_per_step(shape: dict) -> float:
    """Floating-point operations of a step: 6 N a token for the weights, 12 L C T (half of it causal) for attention."""
    length = shape.get("context", shape["n_positions"])
    tokens, width, layers = shape["batch"] * length, shape["n_embd"], shape["n_layer"]
    weights = 12 * layers * width**2 + shape["vocab_size"] * width
    return tokens * (6 * weights + 12 * layers * width * length / 2)


class Peer:
    """A library in its own process."""

    def __init__(self, library: str, shape: dict) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=worker, args=(theirs, library, shape), daemon=True)
        self.process.start()

    def run(self, count: int):
        self.connection.send(count)
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def time_steps(name: str, libraries: list[str], rounds: int, ceiling: float) -> list[dict]:
    shape = SHAPES[name]
    peers = {library: Peer(library, shape) for library in libraries}
    for peer in peers.values():
        peer.run(5)  # compiles, touches memory
    _, seconds, _ = peers[libraries[0]].run(5)
    count = max(1, round(1.0 / min(seconds)))  # a turn lasts a second
    times: dict[str, list[float]] = {library: [] for library in libraries}
    peaks = {}
    for _ in range(rounds):
        for library, peer in peers.items():
            _, seconds, peaks[library] = peer.run(count)
            times[library] += seconds
    for peer in peers.values():
        peer.close()
    medians = {library: statistics.median(values) for library, values in times.items()}
    return [
        {
            "shape": name,
            "library": library,
            "ms": 1e3 * medians[library],
            "ratio": medians["torch"] / medians[library] if "torch" in medians else None,
            "gflops": operations_per_step(shape) / medians[library] / 1e9,
            "percent_of_sgemm": 100 * operations_per_step(shape) / medians[library] / 1e9 / ceiling,
            "peak_mib": peaks[library] / 2**20,
            "steps": len(times[library]),
        }
        for library in libraries
    ]


def compare_losses(name: str, count: int) -> dict:
    peers = {library: Peer(library, SHAPES[name]) for library in ("minilm", "torch")}
    losses = {library: np.array(peer.run(count)[0]) for library, peer in peers.items()}
    for peer in peers.values():
        peer.close()
    worst = float(np.max(np.abs(losses["minilm"] - losses["torch"]) / losses["torch"]))
    return {"shape": name, "steps": count, "first": losses["torch"][0], "last": losses["torch"][-1], "worst": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated, of: " + ", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=15, help="how often each library takes its turn")
    parser.add_argument("--losses", type=int, default=0, help="compare this many losses instead of timing")
    parser.add_argument("--save", type=Path, help="write the rows as JSON lines to this file too")
    arguments = parser.parse_args()
    names = arguments.shapes.split(",")
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        parser.error(f"no shape is named {unknown[0]!r}; there are: {', '.join(SHAPES)}")
    has_torch = importlib.util.find_spec("torch") is not None
    rows: list[dict] = []
    print(machine.describe() + (f", torch {importlib.metadata.version('torch')}" if has_torch else ", no torch"))
    if arguments.losses:
        if not has_torch:
            parser.error("--losses compares with torch, which is not installed: pip install torch")
        for name in names:
            row = compare_losses(name, arguments.losses)
            rows.append(row)
            first, last, worst = row["first"], row["last"], row["worst"]
            print(f"{name}: {row['steps']} losses, {first:.4f} to {last:.4f}, differ by at most {worst:.1e} relative")
    else:
        ceiling = machine.sgemm_gflops()
        print(f"sgemm {ceiling:.0f} GFLOP/s")
        columns = ("ms/step", "x torch", "GFLOP/s", "% sgemm")
        print(f"{'shape':<11} {'library':<8}", *(f"{name:>9}" for name in (*columns, "peak MiB", "steps")))
        for name in names:
            for row in time_steps(name, ["minilm", "torch"] if has_torch else ["minilm"], arguments.rounds, ceiling):
                rows.append(row)
                ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
                print(
                    f"{row['shape']:<11} {row['library']:<8} {row['ms']:>9.1f} {ratio:>9} {row['gflops']:>9.0f} "
                    f"{row['percent_of_sgemm']:>9.0f} {row['peak_mib']:>9.0f} {row['steps']:>9}",
                    flush=True,
                )
    if arguments.save:
        arguments.save.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
