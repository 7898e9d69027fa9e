"""Tokens a second of a Llama in a GGUF file: its prompt read, then written on greedily, one row.

    python benchmarks/decode.py MODEL.gguf [--prompt 512] [--tokens 64] [--rounds 5] [--peers transformers,llama_cpp]

Ours runs with the weights quantised as they are ("keep") and as float32; transformers, where it is installed with
accelerate and gguf, in float32; llama.cpp, where llama-cpp-python is, on the file itself. All take turns in one
process, on as many threads as there are cores, and medians are printed. The greedy tokens of the float32 runs are
compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import machine
import numpy as np

THREADS = len(os.sched_getaffinity(0))


def ours(path: Path, weights: str):
    from minilm.backend import reuse_memory
    from minilm.models import load

    reuse_memory()
    model = load(path, weights)

    def run(prompt: np.ndarray, tokens: int) -> tuple[float, float, list[int]]:
        """Seconds for the prompt and its first token, seconds for the others, and all the tokens."""
        stamps, started = [], time.perf_counter()
        stamp = lambda _: stamps.append(time.perf_counter())
        out = model.generate(prompt[None], tokens, eos_token_id=[], streamer=stamp)
        return stamps[0] - started, stamps[-1] - stamps[0], out[0, len(prompt) :].tolist()

    return run


def transformers(path: Path):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()

    def run(prompt: np.ndarray, tokens: int):
        ids, found, cache, started = torch.from_numpy(prompt[None]), [], None, time.perf_counter()
        with torch.no_grad():
            for i in range(tokens):
                out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
                found.append(int(ids))
                if i == 0:
                    first = time.perf_counter()
        return first - started, time.perf_counter() - first, found

    return run


def llama_cpp(path: Path):
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=2048, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)

    def run(prompt: np.ndarray, tokens: int):
        model.reset()
        started = time.perf_counter()
        model.eval(prompt.tolist())
        found = [model.sample(temp=0.0)]
        first = time.perf_counter()
        for _ in range(tokens - 1):
            model.eval(found[-1:])
            found.append(model.sample(temp=0.0))
        return first - started, time.perf_counter() - first, found

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="transformers,llama_cpp")
    options = parser.parse_args()

    runs = {"minilm keep": ours(options.model, "keep"), "minilm fp32": ours(options.model, "fp32")}
    for name in filter(None, options.peers.split(",")):
        try:
            runs[name] = {"transformers": transformers, "llama_cpp": llama_cpp}[name](options.model)
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    prompt = np.random.default_rng(0).integers(100, 10_000, options.prompt)
    times: dict[str, list] = {name: [] for name in runs}
    written = {}
    for turn in range(options.rounds + 1):
        for name, run in runs.items():
            reading, writing, written[name] = run(prompt, options.tokens)
            if turn:  # the first compiles, and brings the weights into memory
                times[name].append((options.prompt / reading, (options.tokens - 1) / writing))
    print(machine.describe())
    print(f"{'':<14} {'prompt tok/s':>13} {'writing tok/s':>14}")
    for name, found in times.items():
        reading, writing = (statistics.median(column) for column in zip(*found))
        print(f"{name:<14} {reading:>13,.0f} {writing:>14,.1f}")
    if "transformers" in written:
        print(f"greedy tokens of minilm fp32 and transformers: {written['minilm fp32'] == written['transformers']}")


if __name__ == "__main__":
    main()
