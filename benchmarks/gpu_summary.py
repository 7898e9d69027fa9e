"""What a run of gpu_suite.sh showed, in a screenful: python benchmarks/gpu_summary.py FOLDER"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

__all__ = ["summary"]

MOST_FAILURES, MOST_COLUMNS = 12, 200  # shown of a part's tests; its log has them all


def summary(folder: Path) -> list[str]:
    """The lines of the summary, from the files that the parts have left; what is not there is left out."""
    text = _lines(folder / "machine.txt")[:3]
    for line in _lines(folder / "parts.txt"):
        name, outcome, seconds, note = line.split("|")
        text.append(f"{name:<11} {outcome:<9} {seconds:>4} s  {note}")
    for name in ("tests", "kernel_tests"):
        failed = [line[:MOST_COLUMNS] for line in _lines(folder / f"{name}.failures.txt") if line.startswith("FAILED ")]
        text += [f"{name}: {line[:MOST_COLUMNS]}" for line in _lines(folder / f"{name}.log")[-1:] if line]
        text += [f"{name}: {len(failed)} failed", *failed[:MOST_FAILURES]] if failed else []
    wrong = [
        line.strip()
        for path in sorted(folder.glob("*.log"))
        for line in _lines(path)
        if "WRONG: " in line or "NOT CHECKED" in line
    ]
    text += [f"wrong or not checked: {len(wrong)}", *wrong[:10]] if wrong else []
    text += _attention(folder / "attention.csv")
    for row in _rows(folder / "training.jsonl"):
        ratio = "" if row["ratio"] is None or row["library"] == "torch" else f", {row['ratio']:.2f} x torch (goal 0.7)"
        text.append(
            f"training {row['shape']} {row['precision']}, {row['library']}: {row['tokens_per_second']:,.0f} tokens/s, "
            f"{row['percent_of_product']:.0f} % of a large product{ratio}"
        )
    for row in _rows(folder / "losses.jsonl"):
        text.append(f"losses {row['shape']}, {row['steps']} steps, GPU and CPU: {row['worst']:.1e} apart (goal 1e-4)")
    for row in _rows(folder / "decoding.jsonl"):
        text.append(f"decoding, {row['name']}: prompt {row['reading']:,.0f}, writing {row['writing']:,.1f} tokens/s")
    return text


def _attention(path: Path) -> list[str]:
    """A line for each pass, mask and length: our kernels' times over flash's and cuDNN's, and share of the ceiling."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[tuple, dict[str, list[str]]] = {}
    for row in rows:
        if row["provider"].startswith("torch") or row["metric"] not in ("ratio", "ceiling"):
            continue
        sizes = json.loads(row["sizes"])
        kind = "causal" if json.loads(row["options"])["causal"] else "full"
        key = row["mode"], kind, f"T={sizes['T']} D={sizes['D']}"
        rival = row["unit"].split()[-1]
        if row["metric"] == "ceiling":
            cell = f"{float(row['p50']):.0f} %"
        elif rival in ("flash", "cudnn"):
            cell = f"{float(row['p50']):.2f} x {rival}"
        else:
            continue
        found.setdefault(key, {}).setdefault(row["provider"], []).append(cell)
    goals = "attention (goals, of flash: cuda 0.9 forward, 0.8 backward; cuda_sm90 1.3 forward)"
    lines = [
        f"  {' '.join(key):<32} " + "; ".join(f"{name} {', '.join(cells)}" for name, cells in providers.items())
        for key, providers in found.items()
    ]
    return [goals, *lines] if lines else []


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in _lines(path)]


if __name__ == "__main__":
    print("\n".join(summary(Path(sys.argv[1]))))
