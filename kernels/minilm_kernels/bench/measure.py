"""Rows of the table: every implementation and peer on one problem, checked first and then timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import registry
from . import peers
from .device import Cpu, Device
from .problem import Problem, Verdict
from .timing import Timed, alternate
from .workload import Workload

__all__ = ["Row", "measure"]

# Peers are checked too, but they round their own forward pass's results where ours are given.
PEER_SLACK = 16
CEILING_SECONDS = 0.4


@dataclass
class Row:
    """One implementation on one problem: how wrong, how fast, how large. `verdict` is None where it could not run."""

    operation: str
    mode: str
    provider: str
    sizes: dict[str, int]
    options: dict[str, Any]
    shown: dict[str, Any]  # the options that a reader wants to know: several values are usual, or this one is not
    x: str
    dtype: str
    verdict: Verdict | None = None
    note: str | None = None  # why there is no verdict or no time
    ours: bool = True
    seconds: np.ndarray = field(default_factory=lambda: np.empty(0))
    flops: float = 0.0
    bytes: float = 0.0
    matrix_rate: float = float("nan")  # of this machine in the same rounds, operations and bytes a second
    copy_rate: float = float("nan")
    memory: int | None = None
    ratios: dict[str, float] = field(default_factory=dict)  # each peer's time over this one's

    @property
    def failed(self) -> bool:
        """Whether it gave wrong results or none where it should have."""
        return self.verdict is not None and not self.verdict.ok

    def percentile(self, percent: float) -> float:
        """Of the seconds of a call; NaN without a sample."""
        return float(np.percentile(self.seconds, percent)) if len(self.seconds) else float("nan")

    @property
    def ceiling(self) -> float:
        """The least seconds: for the arithmetic at the matrix rate or the traffic at the copy rate, the longer one."""
        return max(self.flops / self.matrix_rate, self.bytes / self.copy_rate)

    @property
    def shape(self) -> str:
        return ",".join(map(str, self.sizes.values()))


def measure(
    workload: Workload,
    mode: str,
    sizes: dict[str, int],
    options: dict[str, Any],
    dtype: str,
    *,
    implementations: list[str] | None = None,
    peer_names: Sequence[str] = (),
    rounds: int = 20,
    seconds: float = 2.0,
    seed: int = 0,
    device: Device | None = None,
) -> list[Row]:
    """A row for each implementation (all of the registry's, or those named) and each peer of these names."""
    device = device or Cpu()
    problem = Problem(workload, mode, {**sizes, **options}, dtype, seed, device=device)
    usual = workload.options
    shown = {name: value for name, value in options.items() if len(usual[name]) > 1 or value != usual[name][0]}
    rows, timed, moved = [], {}, 0.0

    def add(provider, call, results, context: Callable = nullcontext, peak=device.peak_bytes, ours=True) -> None:
        nonlocal moved
        row = Row(workload.operation, mode, provider, sizes, options, shown, workload.x, dtype, ours=ours)
        rows.append(row)
        try:
            found = results()
            row.verdict = problem.verdict(found, slack=1.0 if ours else PEER_SLACK, partial=not ours)
            if row.verdict.ok:
                moved = moved or workload.bytes_moved(mode, problem.inputs, found)
                del found
                timed[provider] = Timed(call, context, seconds)
                start = time.perf_counter()
                with context():
                    row.memory = peak(call)
                timed[provider].expect(time.perf_counter() - start)
        except registry.Refused as error:
            row.note = str(error).split(": ", 1)[-1]
        except MemoryError as error:
            row.verdict, row.note = None, f"out of memory: {error}"
        except Exception as error:  # whatever a kernel under test does is told, and the others go on
            fault = f"{type(error).__name__}: {error}"
            row.verdict, row.note = (Verdict(np.inf, np.inf, fault), None) if ours else (None, fault)

    with np.errstate(all="ignore"):
        for entry in registry.implementations(workload.passes()[mode], device=device.name):
            if implementations is None or entry.name in implementations:
                call = problem.call(entry.name, problem.scratch)
                add(entry.name, call, lambda name=entry.name: problem.run(name))
        for name in peer_names:
            for peer in peers.opponents(name, problem):
                add(peer.name, peer.call, peer.results, peer.context, peer.peak_bytes, ours=False)
        ceilings = device.ceilings(problem.dtype)
        limits = {name: Timed(function, budget=CEILING_SECONDS) for name, (function, _) in ceilings.items()}
        alternate([*timed.values(), *limits.values()], rounds, device.timer())

    rates = {name: work / np.median(limits[name].samples) for name, (_, work) in ceilings.items()}
    rivals = [row.provider for row in rows if not row.ours and row.provider in timed]
    for row in rows:
        row.flops, row.bytes = workload.flops(mode, **sizes, **options), moved
        row.matrix_rate, row.copy_rate = rates["matrix"], rates["copy"]
        if row.provider in timed:
            row.seconds = timed[row.provider].samples
            mine = timed[row.provider]
            row.ratios = {rival: _ratio(timed[rival], mine) for rival in rivals if rival != row.provider}
    return rows


def _ratio(theirs: Timed, mine: Timed) -> float:
    """The median over the rounds in which both ran of the quotient of their times."""
    quotients = np.array(theirs.seconds) / np.array(mine.seconds)
    return float(np.nanmedian(quotients))
