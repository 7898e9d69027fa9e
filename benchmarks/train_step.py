"""A whole training step (forward, backward, clipping, AdamW): ours and that of a plain torch model of the same shape.

    python benchmarks/train_step.py [--shapes char-cpu,medium,lstm] [--rounds 15] [--losses 100] [--save FILE]
    python benchmarks/train_step.py --device cuda [--precision bf16] [--losses 100 --against cpu]

Each library runs in its own process, so that neither's allocator or threads serve the other and each has its own peak
of memory; the two step in turn, so that drift of the machine cancels. Both start from the same weights and see the
same batches. Without torch only our rows are printed. `--losses N` compares the first N losses instead.

On a GPU both compute in `--precision`, torch under torch.compile with its fused AdamW, and memory is what the process
takes of the card. `--against cpu` compares our losses there with our own on the CPU in float32.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import machine
import numpy as np
from steps import SHAPES, USUAL, batches, operations_per_step, our_step, tokens_per_step, torch_step


def worker(connection, library: str, shape: dict, *settings) -> None:
    """Runs steps as asked: a number comes in, (losses, seconds of each step, peak bytes) goes back."""
    step = {"minilm": our_step, "torch": torch_step}[library](shape, *settings)
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


class Peer:
    """A library in its own process."""

    def __init__(self, library: str, shape: dict, *settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=worker, args=(theirs, library, shape, *settings), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is seen here if the process dies

    def run(self, count: int, patience: float | None = None):
        """What `worker` sends back. TimeoutError, and the process is ended, if that takes longer than `patience`."""
        self.connection.send(count)
        if not self.connection.poll(patience):
            self.process.kill()
            raise TimeoutError(f"{count} steps took more than {patience:g} s")
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def settings_of(library: str, options, captured: bool) -> tuple:
    """What the library's step takes beside the shape."""
    ours = (captured,) if library == "minilm" else ()
    return options.device, options.precision, *ours


def started(library: str, name: str, options) -> Peer | None:
    """A peer after its first steps, which compile and touch memory; ours without a graph if with one it can't."""
    for captured in (True, False) if library == "minilm" and options.device == "cuda" else (False,):
        peer = Peer(library, SHAPES[name], *settings_of(library, options, captured))
        try:
            peer.run(5, options.patience)
            return peer
        except (EOFError, TimeoutError) as error:
            graph = ", its steps recorded as a graph," if captured else ""
            reason = "its error stands above" if isinstance(error, EOFError) else str(error)
            print(f"{name}: {library}{graph} could not run; {reason}", flush=True)
    return None


def time_steps(name: str, libraries: list[str], options, ceiling: float) -> list[dict]:
    shape, peers, held = SHAPES[name], {}, {}
    for library in libraries:
        before = machine.gpu_memory_in_use() if options.device == "cuda" else 0
        if (peer := started(library, name, options)) is not None:
            peers[library] = peer
            held[library] = machine.gpu_memory_in_use() - before if options.device == "cuda" else 0
    if not peers:
        raise SystemExit(f"{name}: nothing could run")
    libraries = list(peers)
    _, seconds, _ = peers[libraries[0]].run(5)
    count = max(1, round(1.0 / min(seconds)))  # a turn lasts a second
    times: dict[str, list[float]] = {library: [] for library in peers}
    for _ in range(options.rounds):
        for library, peer in peers.items():
            _, seconds, peak = peer.run(count)
            times[library] += seconds
            held[library] = held[library] if options.device == "cuda" else peak
    for peer in peers.values():
        peer.close()
    medians = {library: statistics.median(values) for library, values in times.items()}
    return [
        {
            "shape": name,
            "library": library,
            "device": options.device,
            "precision": options.precision,
            "ms": 1e3 * medians[library],
            "ratio": medians["torch"] / medians[library] if "torch" in medians else None,
            "tokens_per_second": tokens_per_step(shape) / medians[library],
            "gflops": operations_per_step(shape) / medians[library] / 1e9,
            "percent_of_product": 100 * operations_per_step(shape) / medians[library] / 1e9 / ceiling,
            "peak_mib": held[library] / 2**20,
            "steps": len(times[library]),
        }
        for library in peers
    ]


def compare_losses(name: str, options) -> dict:
    """Our losses beside torch's in the same precision, or beside our own on the CPU in float32."""
    ours = "minilm", *settings_of("minilm", options, options.device == "cuda")
    theirs = (
        ("minilm", "cpu", "fp32", False)
        if options.against == "cpu"
        else ("torch", *settings_of("torch", options, False))
    )
    peers = [Peer(library, SHAPES[name], *settings) for library, *settings in (ours, theirs)]
    for peer in peers:  # both at once: nothing is timed
        peer.connection.send(options.losses)
    mine, other = (np.array(peer.connection.recv()[0]) for peer in peers)
    for peer in peers:
        peer.close()
    worst = float(np.max(np.abs(mine - other) / other))
    return {
        "shape": name,
        "steps": options.losses,
        "device": options.device,
        "precision": options.precision,
        "against": options.against,
        "first": other[0],
        "last": other[-1],
        "worst": worst,
    }


def parsed(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", help="comma-separated, of: " + ", ".join(SHAPES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), help="fp32 on the CPU, bf16 on a GPU")
    parser.add_argument("--rounds", type=int, default=15, help="how often each library takes its turn")
    parser.add_argument("--losses", type=int, default=0, help="compare this many losses instead of timing")
    parser.add_argument("--against", choices=("torch", "cpu"), default="torch", help="whose losses to compare with")
    parser.add_argument(
        "--patience", type=float, help="seconds that a library's first steps may take, else it is left out"
    )
    parser.add_argument("--save", type=Path, help="write the rows as JSON lines to this file too")
    options = parser.parse_args(arguments)
    options.names = options.shapes.split(",") if options.shapes else list(USUAL[options.device])
    options.precision = options.precision or {"cpu": "fp32", "cuda": "bf16"}[options.device]
    unknown = [name for name in options.names if name not in SHAPES]
    if unknown:
        parser.error(f"no shape is named {unknown[0]!r}; there are: {', '.join(SHAPES)}")
    if options.device == "cpu" and options.precision == "tf32":
        parser.error("--precision tf32 is how a GPU multiplies float32: choose --device cuda, or another precision")
    if options.device == "cuda":
        from minilm.backend import cuda_problem

        if (problem := cuda_problem()) is not None:
            parser.error(f"--device cuda can't be used here: {problem}")
    options.has_torch = importlib.util.find_spec("torch") is not None
    if options.losses and options.against == "torch" and not options.has_torch:
        parser.error("--losses compares with torch, which is not installed: pip install torch")
    return options


def main() -> None:
    options = parsed()
    rows: list[dict] = []
    described = machine.describe(options.device)
    print(described + (f", torch {importlib.metadata.version('torch')}" if options.has_torch else ", no torch"))
    if options.losses:
        for name in options.names:
            row = compare_losses(name, options)
            rows.append(row)
            first, last, worst = row["first"], row["last"], row["worst"]
            print(
                f"{name}: {row['steps']} losses, {first:.4f} to {last:.4f}, differ from those of {row['against']} by "
                f"at most {worst:.1e} relative"
            )
    else:
        on_gpu = options.device == "cuda"
        ceiling = machine.gpu_product_gflops(options.precision) if on_gpu else machine.sgemm_gflops()
        print(f"a large matrix product in {options.precision}: {ceiling:,.0f} GFLOP/s")
        columns = ("ms/step", "x torch", "tokens/s", "GFLOP/s", "% of it", "peak MiB", "steps")
        print(f"{'shape':<14} {'library':<8}", *(f"{name:>9}" for name in columns))
        for name in options.names:
            for row in time_steps(name, ["minilm", "torch"] if options.has_torch else ["minilm"], options, ceiling):
                rows.append(row)
                ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
                print(
                    f"{row['shape']:<14} {row['library']:<8} {row['ms']:>9.1f} {ratio:>9} "
                    f"{row['tokens_per_second']:>9,.0f} {row['gflops']:>9.0f} {row['percent_of_product']:>9.0f} "
                    f"{row['peak_mib']:>9.0f} {row['steps']:>9}",
                    flush=True,
                )
    if options.save:
        options.save.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
