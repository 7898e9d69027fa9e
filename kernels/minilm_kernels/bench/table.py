"""The table on the screen: a block for each problem, a line for each implementation."""

from __future__ import annotations

import math

from .measure import Row

__all__ = ["HEADER", "lines", "title"]

HEADER = (
    f"  {'implementation':<22} {'median':>10} {'p20':>10} {'p80':>10} {'n':>3} {'GFLOP/s':>8} {'GB/s':>7} "
    f"{'ceiling':>8} {'abs. error':>10} {'rel. error':>10} {'memory':>10} {'ratio':>6}"
)


def title(rows: list[Row]) -> str:
    """What the problem is, and what the machine could do at best while it was solved."""
    row = rows[0]
    sizes = ", ".join(f"{name}={value}" for name, value in row.sizes.items())
    options = "".join(f", {name}={value}" for name, value in row.shown.items())
    rates = f"matrix product {row.matrix_rate / 1e9:,.1f} GFLOP/s, copy {row.copy_rate / 1e9:,.1f} GB/s"
    peer = next((f"; ratio: times faster than {row.peer}" for row in rows if row.peer), "")
    return f"{row.operation} {row.mode}, {row.dtype}: {sizes}{options}\n  {rates}{peer}"


def lines(rows: list[Row]) -> list[str]:
    """A line for each row; of a wrong kernel its error, and no time."""
    return [_line(row) for row in rows]


def _line(row: Row) -> str:
    name = f"  {row.provider:<22} "
    if row.verdict is None:
        return f"{name}not run: {row.note}"
    if row.failed:
        return f"{name}WRONG: {row.verdict.fault}"
    p20, median, p80 = (row.percentile(percent) for percent in (20, 50, 80))
    return (
        f"{name}{_time(median):>10} {_time(p20):>10} {_time(p80):>10} {len(row.seconds):>3} "
        f"{row.flops / median / 1e9:>8.2f} {row.bytes / median / 1e9:>7.2f} {row.ceiling / median:>8.1%} "
        f"{row.verdict.absolute:>10.1e} {row.verdict.relative:>10.1e} {_bytes(row.memory):>10} "
        f"{'' if row.ratio is None else f'{row.ratio:.2f}':>6}"
    )


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return (
        f"{seconds:.3f} s"
        if seconds >= 10
        else f"{seconds * 1e3:,.4g} ms"
        if seconds >= 1e-3
        else f"{seconds * 1e3:.4f} ms"
    )


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
