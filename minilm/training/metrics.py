"""metrics.jsonl, one row of numbers a step; and loss.png, drawn from it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np

from minilm.files import atomic_write

__all__ = ["MetricsFile", "draw_loss"]


class MetricsFile:
    """A file of rows, each a JSON object on a line of its own, with an increasing `step`.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> metrics = MetricsFile(Path(folder.name, "metrics.jsonl"))
    >>> for step in (1, 2, 3):
    ...     metrics.write({"step": step, "loss": 1 / step})
    >>> metrics.cut_after(2)
    [{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}]
    >>> metrics.close(); folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._file = None

    def write(self, row: dict) -> None:
        """Appends a row; any other program sees it at once."""
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  (open for as long as the run)
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Puts the rows on disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; the next `write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[dict]:
        """The rows that are whole: a line that a stop tore ends the list."""
        rows = []
        if self.path.exists():
            for line in self.path.read_bytes().split(b"\n")[:-1]:
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                    break
                rows.append(row)
        return rows

    def cut_after(self, step: int) -> list[dict]:
        """Drops the rows of later steps and a torn last line, all at once; returns the rows that are left."""
        self.close()
        rows = [row for row in self.read() if row["step"] <= step]
        if self.path.exists():
            atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows


def draw_loss(rows: list[dict], path: str | os.PathLike) -> Path:
    """Draws training and validation loss over the steps into a PNG file, and returns its path.

    ImportError (how to install it) without matplotlib, which is imported only here.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing the losses needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    means, width = _smoothed(losses)
    if width > 1:
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="train, each step")
    axes.plot(steps, means, color="tab:blue", label="train" if width == 1 else f"train, mean of {width} steps")
    evaluated = [row for row in rows if "val_loss" in row]
    if evaluated:
        best = min(evaluated, key=lambda row: row["val_loss"])
        label = f"validation (best {best['val_loss']:.3f} at step {best['step']})"
        axes.plot(
            [row["step"] for row in evaluated],
            [row["val_loss"] for row in evaluated],
            color="tab:orange",
            marker="o",
            markersize=3,
            label=label,
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    if rows:
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return atomic_write(path, image.getvalue())


def _smoothed(values: list[float]) -> tuple[np.ndarray, int]:
    """Means over a fiftieth of the run, and over how many steps that is; each lies in the middle of its window.

    Windows are narrower at both ends, so that the mean keeps up with a loss that falls fast.
    """
    half, place = len(values) // 100, np.arange(len(values))
    reach = np.minimum(half, np.minimum(place, place[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1), 2 * half + 1
