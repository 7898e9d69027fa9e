"""Tokens a second of a Llama: its prompt read, then written on greedily, one row.

    python benchmarks/decode.py MODEL.gguf [--prompt 512] [--tokens 64] [--rounds 5] [--peers transformers,llama_cpp]
    python benchmarks/decode.py random --device cuda

MODEL is a GGUF file, or "random" for random weights in the shape of SmolLM2-135M, for which nothing need be there.
Ours runs with the weights quantised as they are ("keep", of a GGUF file) and as float32, on a GPU as bfloat16 too,
once more with each token's step launched as a CUDA graph;
transformers, where it is installed (for GGUF files with accelerate and gguf), in float32, on a GPU in bfloat16;
llama.cpp, where llama-cpp-python is, on the file itself. All take turns in one process, on as many threads as there are
cores, and medians are printed. The greedy tokens of ours and transformers' in one precision are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import machine
import numpy as np

THREADS = len(os.sched_getaffinity(0))
SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}


def random_model(folder: Path) -> Path:
    """Writes a model of random weights into the folder, for both libraries to load."""
    from minilm.backend import Generator
    from minilm.models import Llama, LlamaConfig

    Llama(LlamaConfig(**SMOLLM2_135M), Generator(0)).save_pretrained(folder)
    return folder


def ours(path: Path, kind: str, device: str):
    from minilm.backend import reuse_memory
    from minilm.models import load

    reuse_memory()
    weights, _, graph = kind.partition(" ")
    cache = {"cache_implementation": "static"} if graph else {}
    model = load(path, "keep" if weights == "keep" else "fp32")
    model = (model.to("bfloat16") if weights == "bf16" else model).to(device)

    def run(prompt: np.ndarray, tokens: int) -> tuple[float, float, list[int]]:
        """Seconds for the prompt and its first token, seconds for the others, and all the tokens."""
        stamps, started = [], time.perf_counter()
        stamp = lambda _: stamps.append(time.perf_counter())
        out = model.generate(prompt[None], tokens, eos_token_id=[], streamer=stamp, **cache)
        return stamps[0] - started, stamps[-1] - stamps[0], out[0, len(prompt) :].tolist()

    return run


def transformers(path: Path, device: str):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    place = {"gguf_file": path.name} if path.is_file() else {}
    model = AutoModelForCausalLM.from_pretrained(path.parent if path.is_file() else path, dtype=dtype, **place)
    model = model.eval().to(device)

    def run(prompt: np.ndarray, tokens: int):
        ids, found, cache, started = torch.from_numpy(prompt[None]).to(device), [], None, time.perf_counter()
        with torch.no_grad():
            for i in range(tokens):
                out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
                found.append(int(ids))
                if i == 0:
                    first = time.perf_counter()
        return first - started, time.perf_counter() - first, found

    return run


def llama_cpp(path: Path, device: str):
    from llama_cpp import Llama

    if path.is_dir() or device != "cpu":
        raise ImportError("it is a peer for GGUF files on the CPU")

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


def parsed(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file, or 'random'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="transformers,llama_cpp")
    parser.add_argument("--save", type=Path, help="write the rows as JSON lines to this file too")
    options = parser.parse_args(arguments)
    if options.model != "random" and not Path(options.model).is_file():
        parser.error(f"there is no file {options.model}; expected a GGUF file, or 'random'")
    if options.device == "cuda":
        from minilm.backend import cuda_problem

        if (problem := cuda_problem()) is not None:
            parser.error(f"--device cuda can't be used here: {problem}")
    return options


def main() -> None:
    options = parsed()
    print(machine.describe(options.device), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        is_random = options.model == "random"
        compare(random_model(Path(folder)) if is_random else Path(options.model), options)


def compare(path: Path, options) -> None:
    kinds = (
        (["keep"] if path.is_file() else []) + ["fp32"] + (["bf16", "bf16 graph"] if options.device == "cuda" else [])
    )
    runs = {f"minilm {kind}": ours(path, kind, options.device) for kind in kinds}
    for name in filter(None, options.peers.split(",")):
        try:
            runs[name] = {"transformers": transformers, "llama_cpp": llama_cpp}[name](path, options.device)
        except ImportError as error:
            print(f"{name}: not run ({error})")
    prompt = np.random.default_rng(0).integers(100, 10_000, options.prompt)
    times: dict[str, list] = {name: [] for name in runs}
    written = {}
    for turn in range(options.rounds + 1):
        for name, run in runs.items():
            reading, writing, written[name] = run(prompt, options.tokens)
            if turn:  # the first compiles, and brings the weights into memory
                times[name].append((options.prompt / reading, (options.tokens - 1) / writing))
    rows = []
    print(f"{'':<17} {'prompt tok/s':>13} {'writing tok/s':>14}")
    for name, found in times.items():
        reading, writing = (statistics.median(column) for column in zip(*found))
        print(f"{name:<17} {reading:>13,.0f} {writing:>14,.1f}")
        rows.append(
            {"model": options.model, "device": options.device, "name": name, "reading": reading, "writing": writing}
        )
    if "transformers" in written:
        alike = "minilm bf16" if options.device == "cuda" else "minilm fp32"
        pairs = list(zip(written[alike], written["transformers"]))
        agree = next((i for i, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
        print(f"greedy tokens of {alike} and transformers agree in the first {agree} of {len(pairs)}")
    if options.save:
        options.save.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
