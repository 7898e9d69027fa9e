"""The table on the screen: a block for each problem, a line for each implementation."""

from __future__ import annotations

import math

from .measure import Row

__all__ = ["header", "lines", "title"]

_HEADER = (
    f"  {'implementation':<22} {'median':>10} {'p20':>10} {'p80':>10} {'n':>3} {'GFLOP/s':>8} {'GB/s':>7} "
    f"{'ceiling':>8} {'abs. error':>10} {'rel. error':>10} {'memory':>10}"
)


def title(rows: list[Row]) -> str:
    """What the problem is, and what the machine could do at best while it was solved."""
    row = rows[0]
    sizes = ", ".join(f"{name}={value}" for name, value in row.sizes.items())
    options = "".join(f", {name}={value}" for name, value in row.shown.items())
    rates = f"matrix product {row.matrix_rate / 1e9:,.1f} GFLOP/s, copy {row.copy_rate / 1e9:,.1f} GB/s"
    peers = _peers(rows)
    ratio = f"; ratio: times faster than {peers[0]}" if len(peers) == 1 else ""
    ratio = "; /: times faster than " + ", ".join(peers) if len(peers) > 1 else ratio
    return f"{row.operation} {row.mode}, {row.dtype}: {sizes}{options}\n  {rates}{ratio}"


def header(rows: list[Row]) -> str:
    """The columns' names; where there are several peers, a ratio to each, by the last word of its name."""
    peers = _peers(rows)
    names = ["ratio"] if len(peers) < 2 else ["/" + peer.split()[-1] for peer in peers]
    return " ".join([_HEADER, *(f"{name:>{_width(name)}}" for name in names)])


def lines(rows: list[Row]) -> list[str]:
    """A line for each row; of a wrong kernel its error, and no time."""
    return [_line(row, _peers(rows)) for row in rows]


def _peers(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(peer for row in rows for peer in row.ratios))


def _width(name: str) -> int:
    return max(6, len(name))


def _line(row: Row, peers: list[str]) -> str:
    name = f"  {row.provider:<22} "
    if row.verdict is None:
        return f"{name}not run: {row.note}"
    if row.failed:
        return f"{name}WRONG: {row.verdict.fault}"
    p20, median, p80 = (row.percentile(percent) for percent in (20, 50, 80))
    ratios = [f"{row.ratios[peer]:.2f}" if peer in row.ratios else "" for peer in peers]
    widths = [_width("/" + peer.split()[-1]) if len(peers) > 1 else 6 for peer in peers]
    return (
        f"{name}{_time(median):>10} {_time(p20):>10} {_time(p80):>10} {len(row.seconds):>3} "
        f"{row.flops / median / 1e9:>8.2f} {row.bytes / median / 1e9:>7.2f} {row.ceiling / median:>8.1%} "
        f"{row.verdict.absolute:>10.1e} {row.verdict.relative:>10.1e} {_bytes(row.memory):>10} "
        + " ".join(f"{ratio:>{width}}" for ratio, width in zip(ratios, widths))
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
