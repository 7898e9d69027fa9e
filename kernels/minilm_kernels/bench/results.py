"""Rows as CSV, in the long form that kernel benchmarks use (Liger-Kernel, triton's perf_report): a metric a line."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

from .measure import Row

__all__ = ["COLUMNS", "write_csv"]

COLUMNS = (
    *("operation", "provider", "mode", "metric", "unit", "x_name", "x_value", "p20", "p50", "p80"),
    *("sizes", "options", "dtype", "device", "versions", "settings", "time"),
)


def write_csv(path: Path, rows: list[Row], settings: dict, device: str, versions: str) -> None:
    """Writes all metrics of all rows (sizes, options and settings as JSON). A wrong kernel has errors and no speed."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            common = {
                "operation": row.operation,
                "provider": row.provider,
                "mode": row.mode,
                "x_name": row.x,
                "x_value": row.sizes[row.x],
                "sizes": json.dumps(row.sizes),
                "options": json.dumps(row.options),
                "dtype": row.dtype,
                "device": device,
                "versions": versions,
                "settings": json.dumps({**settings, "samples": len(row.seconds)}),
                "time": now,
            }
            for metric, unit, values in _metrics(row):
                quantiles = dict(zip(("p20", "p50", "p80"), values))
                writer.writerow({**common, "metric": metric, "unit": unit, **quantiles})


def _metrics(row: Row):
    """(metric, unit, (p20, p50, p80)); what is not a distribution has a p50 alone."""
    if row.verdict is not None:
        yield "max_abs_error", "", ("", _number(row.verdict.absolute), "")
        yield "max_rel_error", "of the largest value", ("", _number(row.verdict.relative), "")
    if row.memory is not None:
        yield "memory", "MiB", ("", _number(row.memory / 2**20), "")
    if not len(row.seconds):
        return
    p20, p50, p80 = (row.percentile(percent) for percent in (20, 50, 80))
    yield "time", "ms", tuple(_number(1e3 * seconds) for seconds in (p20, p50, p80))
    # The rate that 20 % of the samples stay below is that of the time that 80 % stay below.
    for metric, unit, amount in (
        ("rate", "GFLOP/s", row.flops / 1e9),
        ("bandwidth", "GB/s", row.bytes / 1e9),
        ("ceiling", "%", 100 * row.ceiling),
    ):
        yield metric, unit, tuple(_number(amount / seconds) for seconds in (p80, p50, p20))
    for peer, ratio in row.ratios.items():
        yield "ratio", f"times faster than {peer}", ("", _number(ratio), "")


def _number(value: float) -> str:
    return f"{value:.6g}"
