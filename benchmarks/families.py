"""Four families of language models on one text, character by character: n-grams, an LSTM, a GRU, and GPT-2.

    python benchmarks/families.py TEXT.txt [--minutes 2] [--seed 0] [--plot curves.png]

What is fair: the last tenth of the text is held out, and each model is scored on all of its characters, in bits a
character (the mean of -log2 P). The three neural models have as many weights (GPT-2's; the others are as wide as it
takes), see windows of the same length in batches of the same size in the same order, and learn by the same optimiser at
the same rates for the same `--minutes` of wall time each: a faster one reads more of the text. Scoring and compiling do
not count as time. Each scored character has at least half a window before it, in the n-grams all of it. An n-gram model
counts the whole text once, and that is its training.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from minilm import backend, nn
from minilm.autograd import no_grad
from minilm.backend import Generator
from minilm.models import GPT2, GPT2Config, NGram, RecurrentConfig, RecurrentLM
from minilm.optim import AdamW, clip_grad_norm

ORDERS = (1, 2, 3, 4, 5, 6)
LEARNING_RATE, FLOOR, WARMUP = 2e-3, 0.1, 0.05  # the last as shares of the rate and of the time
SCORED_AT_ONCE = 32
DRAWN_ON_THE_WAY, DRAWN = 8, 8192  # points of a curve, and how much of the held-out text they are scored on
SAMPLE = 200


@dataclass
class Result:
    """What is printed of a model."""

    name: str
    bits: float
    size: str
    speed: float  # characters a second in training
    seen: int
    sample: np.ndarray | str
    curve: list[tuple[float, float]] = field(default_factory=list)  # (seconds, bits on the first held-out characters)
    drawn: float = math.nan  # of an n-gram model, bits on these


def main() -> None:
    options = arguments()
    text = read(options.text)
    characters = sorted(set(text))
    numbers = {character: number for number, character in enumerate(characters)}
    tokens = np.array([numbers[character] for character in text], np.int64)
    cut = len(tokens) - len(tokens) // 10
    training, held_out = tokens[:cut], tokens[cut:]
    if len(held_out) <= options.context:
        raise SystemExit(
            f"{options.text} has {len(text)} characters; a tenth of it must be more than {options.context}"
        )
    shown = f"{len(text):,} characters, {len(characters)} different; {len(held_out):,} held out"
    print(f"{options.text}: {shown}; {options.minutes:g} min each\n", flush=True)

    results = []
    counted = count_all(training, held_out, len(characters), options.seed)
    for result in chain(counted, train_all(training, held_out, characters, options)):
        result.sample = "".join(characters[int(token)] for token in result.sample)
        results.append(result)
        print(f"{result.name}: {result.bits:.3f} bits a character\n{indented(result.sample)}\n", flush=True)
    print(table(results))
    if options.plot:
        draw(results, options.plot)
        print(f"\n{options.plot} shows how each came there")


def read(path: str) -> str:
    """The text; what is wrong with the file in a line."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path} can't be read as UTF-8 text: {error}") from error


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="a file of UTF-8 text")
    parser.add_argument("--minutes", type=float, default=2, help="of training, for each neural model")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights, the batches and the samples")
    parser.add_argument("--layers", type=int, default=4, help="of GPT-2; the recurrent ones have two")
    parser.add_argument("--width", type=int, default=128, help="of GPT-2, which has a head for every 32")
    parser.add_argument("--context", type=int, default=128, help="characters in a window")
    parser.add_argument("--batch", type=int, default=16, help="windows in a step")
    parser.add_argument("--plot", help="a PNG file for the curves")
    options = parser.parse_args()
    for name in ("minutes", "layers", "width", "batch"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} is more than 0; got {getattr(options, name)}")
    if options.seed < 0:
        parser.error(f"--seed is 0 or more; got {options.seed}")
    if options.plot and (Path(options.plot).suffix != ".png" or not Path(options.plot).parent.is_dir()):
        parser.error(f"--plot is a name that ends in .png, in a folder that is there; got {options.plot}")
    if options.context < 2 or (options.width > 32 and options.width % 32):
        parser.error("--context is 2 or more, --width at most 32 or a multiple of it")
    return options


def count_all(training: np.ndarray, held_out: np.ndarray, vocabulary: int, seed: int):
    """The n-gram models of several orders."""
    for order in ORDERS:
        start = time.perf_counter()
        model = NGram(vocabulary, order).fit(training)
        seconds = time.perf_counter() - start
        bits = model.loss(held_out) / math.log(2)
        sample = model.generate(held_out[:1], SAMPLE, seed)[1:]
        yield Result(
            f"{order}-gram, Kneser-Ney",
            bits,
            f"{model.n_parameters:,} counts",
            len(training) / seconds,
            len(training),
            sample,
            drawn=model.loss(held_out[:DRAWN]) / math.log(2),
        )


def train_all(training: np.ndarray, held_out: np.ndarray, characters: list[str], options):
    """The neural models, each trained for as long."""
    vocabulary, heads = len(characters), max(1, options.width // 32)
    shape = {"n_positions": options.context, "n_embd": options.width, "n_layer": options.layers, "n_head": heads}
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)  # in minutes nothing is learnt by heart
    gpt2 = GPT2(GPT2Config(vocab_size=vocabulary, **shape, **off), Generator(options.seed))
    models = [
        (f"{cell.upper()}, 2 layers", as_large(gpt2.n_parameters, cell, vocabulary, options))
        for cell in ("lstm", "gru")
    ]
    for name, model in (*models, (f"GPT-2, {options.layers} layer{'s'[: options.layers > 1]}", gpt2)):
        curve, seen, seconds = train(model, training, held_out, options)
        bits = score(model, held_out, options.context)
        drawn = model.generate(held_out[None, :1], max_new_tokens=SAMPLE, do_sample=True, seed=options.seed)[0, 1:]
        yield Result(name, bits, f"{model.n_parameters:,} weights", seen / seconds, seen, drawn, curve)


def as_large(weights: int, cell: str, vocabulary: int, options) -> RecurrentLM:
    """A recurrent model with about that many weights: two layers of g (2 h^2 + 2 h), and a table V h."""
    gates = {"lstm": 4, "gru": 3}[cell]
    linear = 4 * gates + vocabulary
    width = round((math.sqrt(linear**2 + 16 * gates * weights) - linear) / (8 * gates))
    config = RecurrentConfig(vocab_size=vocabulary, hidden_size=max(1, width), num_layers=2, cell=cell)
    return RecurrentLM(config, Generator(options.seed))


def train(model, training: np.ndarray, held_out: np.ndarray, options) -> tuple[list, int, float]:
    """(points of the curve, characters seen, seconds), at rates that rise and then fall by a cosine of the time."""
    random, budget = np.random.default_rng(options.seed), 60 * options.minutes
    part = held_out[: max(options.context + 1, DRAWN)]
    beginning = {name: backend.to_numpy(value).copy() for name, value in model.state_dict().items()}

    def start_anew() -> AdamW:
        model.load_state_dict(beginning)
        return AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1)

    def step(optimizer: AdamW, random: np.random.Generator) -> None:
        first = random.integers(0, len(training) - options.context, options.batch)[:, None]
        windows = training[first + np.arange(options.context + 1)]
        loss = model(windows[:, :-1], targets=windows[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()

    step(start_anew(), np.random.default_rng(options.seed))  # compiles, and is undone
    optimizer = start_anew()
    curve, seen, seconds = [(0.0, score(model, part, options.context))], 0, 0.0
    while seconds < budget:
        start, share = time.perf_counter(), seconds / budget
        rate = min(1.0, (share + 1e-3) / WARMUP) * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * share)) / 2)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate
        step(optimizer, random)
        seconds += time.perf_counter() - start
        seen += options.batch * options.context
        if seconds >= budget * len(curve) / DRAWN_ON_THE_WAY:
            curve.append((seconds, score(model, part, options.context)))
    return curve, seen, seconds


def score(model, tokens: np.ndarray, context: int) -> float:
    """Bits a character: windows overlap by a half, and only what has as much before it is scored, but at the start."""
    length = min(context, len(tokens) - 1)
    starts = np.unique(np.append(np.arange(0, len(tokens) - length, length - length // 2), len(tokens) - 1 - length))
    total, scored = 0.0, 1  # how far the text has been scored; its first character has nothing before it
    with nn.eval_mode(model), no_grad():
        for i in range(0, len(starts), SCORED_AT_ONCE):
            windows = tokens[starts[i : i + SCORED_AT_ONCE, None] + np.arange(length + 1)]
            targets = windows[:, 1:].copy()
            for row, start in enumerate(starts[i : i + SCORED_AT_ONCE]):
                targets[row, : scored - start - 1] = -100
                scored = start + length + 1
            total += model(windows[:, :-1], targets=targets).loss.item() * np.count_nonzero(targets >= 0)
    return total / (len(tokens) - 1) / math.log(2)


def table(results: list[Result]) -> str:
    rows = [
        "| model | bits a character | size | characters/s in training | characters seen |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows += [f"| {one.name} | {one.bits:.3f} | {one.size} | {one.speed:,.0f} | {one.seen:,} |" for one in results]
    return "\n".join(rows)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def draw(results: list[Result], path: str) -> None:
    """Curves of the neural models over time, and a line for the best of the n-grams."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    counted = min((one for one in results if not one.curve), key=lambda one: one.bits)
    axes.axhline(counted.drawn, color="0.4", linestyle="--", label=f"best n-gram ({counted.name})")
    for one in results:
        if one.curve:
            axes.plot(*zip(*one.curve), marker=".", label=one.name)
    axes.set(
        xlabel="seconds of training",
        ylabel="bits a character, start of the held-out text",
        ylim=(0.9 * min(counted.drawn, *(bits for one in results for _, bits in one.curve)), None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
