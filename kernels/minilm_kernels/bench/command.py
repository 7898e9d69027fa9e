"""`minilm bench`, or `python -m minilm_kernels.bench`: the command line of the lab."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import registry
from . import machine, peers, plots, results, table
from .choices import choose, option_values, parse_shapes, variants
from .device import Device, device_named
from .errors import LabError
from .include import include
from .measure import Row, measure
from .workload import MODES, Workload, workloads

__all__ = ["main"]

_PASSES = {"fwd": "forward", "bwd": "backward"}
_DESCRIPTION = """Check and time every implementation of an operation beside the others and its peers.

A kernel is timed only after it was checked against the float64 reference, in this run; a wrong one is shown with its
error and no time, and the exit status is 1. Implementations take turns, round by round, so that drift cancels."""
_EPILOG = """An operation's own options vary what is computed: minilm bench attention --causal true,false
`minilm bench --list` shows shapes, options and implementations. Memory is the peak of a call beyond its inputs."""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m minilm_kernels.bench") -> int:
    """Runs the command line; returns the exit status: 0, 1 where a kernel is wrong, 2 for what can't be done."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["check-kernel"]:
            from .checking import run

            return run(arguments[1:], f"{prog} check-kernel")
        return _bench(arguments, prog)
    except LabError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("operations", nargs="*", metavar="OPERATION", help="one or more, or 'all'")
    add("--list", action="store_true", help="show what there is to run, of OPERATION or of all, and run nothing")
    add("--pass", dest="passes", default="fwd,bwd", help="fwd, bwd, or both (the default)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="where to run (default %(default)s)")
    add("--shapes", default="default", help="a preset, or shapes with ; between them: '1,12,4096,64;12,4,64,32'")
    add("--implementations", default="all", help="names, or 'all' (the default)")
    add("--dtype", help="float32 (the default on a CPU), bfloat16 (on a GPU), float16, float64")
    add("--peers", help="other libraries to compare with: torch (the default where installed), or none")
    add("--rounds", type=int, default=20, help="samples of each implementation (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="at most, for an implementation's samples (default %(default)s)")
    add("--seed", type=int, default=0, help="of the inputs")
    add("--include", action="append", default=[], metavar="FILE", help="a Python file that registers kernels of yours")
    add("--csv", type=Path, metavar="FILE", help="write all results, a metric a line")
    add("--plot", type=Path, metavar="FILE", help="draw the rates of all implementations (png, pdf, svg)")
    add("--roofline", type=Path, metavar="FILE", help="draw them under the machine's two ceilings")
    return parser


def _bench(arguments: list[str], prog: str) -> int:
    options, unknown = _parser(prog).parse_known_args(arguments)
    if options.list:
        return _list(options.operations, options.include, options.device)
    device = device_named(options.device)
    for path in options.include:
        for entry in include(path, device.name):
            print(f"{path}: {entry.name!r} for {entry.operation}")
    if not options.operations:
        raise LabError(f"no operation is named; expected 'all' or some of: {', '.join(workloads())}")
    chosen = _chosen(options.operations)
    given = option_values(unknown, chosen)
    modes = [_PASSES[name] for name in choose("pass", options.passes, _PASSES)]
    if not any(mode in workload.passes() for workload in chosen for mode in modes):
        raise LabError(f"{chosen[0].operation} has no {modes[0]} pass; it has: {', '.join(chosen[0].passes())}")
    if options.rounds < 1 or options.seconds <= 0:
        raise LabError(f"--rounds {options.rounds} and --seconds {options.seconds}; expected more than 0 of both")
    if options.seed < 0:
        raise LabError(f"--seed {options.seed}; expected 0 or more")
    dtypes = choose("dtype", options.dtype or device.dtype, ("float32", "float64", "float16", "bfloat16"))
    wanted = None if options.implementations == "all" else _implementations(options.implementations, chosen, device)
    rivals = _peers(options.peers)
    for path in (options.plot, options.roofline):
        if path is not None:
            plots.check(path)
    for path in (options.csv, options.plot, options.roofline):
        if path is not None:
            _check_place(path)

    described, versions = device.describe(), machine.versions([*device.packages, *rivals])
    print(f"{described}; {versions}")
    if options.peers is None and not rivals:
        print(f"compared with nothing else: pip install {' '.join(peers.PEERS)} for a ratio")
    settings = {"rounds": options.rounds, "seconds": options.seconds, "seed": options.seed}
    rows: list[Row] = []
    unchecked = 0
    for workload in chosen:
        preset = device.name if options.shapes == "default" and device.name in workload.presets else options.shapes
        for shape in parse_shapes(workload, preset):
            for variant in variants(workload, given):
                for mode in (mode for mode in MODES if mode in modes and mode in workload.passes()):
                    for dtype in dtypes:
                        found = _one(workload, mode, shape, variant, dtype, wanted, rivals, options, device)
                        rows += found or []
                        unchecked += found is None
                        if options.csv is not None:  # each time, so that whoever is stopped has what was measured
                            results.write_csv(options.csv, rows, settings, described, versions)
    if options.csv is not None:
        print(f"wrote {options.csv}")
    for path, draw in ((options.plot, plots.speed), (options.roofline, plots.roofline)):
        if path is not None:
            print(
                "".join(f"wrote {written}\n" for written in draw(path, rows, described))
                or f"nothing to draw in {path}",
                end="",
            )
    wrong = [row for row in rows if row.failed]
    for row in wrong:
        print(f"WRONG: {row.operation} {row.mode} by {row.provider} at {row.shape}", file=sys.stderr)
    return 1 if wrong or unchecked else 0


def _one(workload: Workload, mode, shape, variant, dtype, wanted, rivals, options, device) -> list[Row] | None:
    """Measures one problem and prints its block of the table; None where the reference itself can't solve it."""
    try:
        with device.bounded():
            rows = measure(
                *(workload, mode, shape, variant, dtype),
                implementations=wanted,
                peer_names=rivals,
                rounds=options.rounds,
                seconds=options.seconds,
                seed=options.seed,
                device=device,
            )
    except LabError:
        raise
    except Exception as error:  # hours of other problems may be still to come
        problem = f"{workload.operation} {mode}, {dtype}, {workload.label(tuple(shape.values()))}"
        print(f"NOT CHECKED: {problem}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None
    if rows:
        print("\n".join(["", table.title(rows), table.header(rows), *table.lines(rows)]), flush=True)
    return rows


def _implementations(words: str, chosen: list[Workload], device: Device) -> list[str]:
    """The names asked for, each of which one of the operations has."""
    there = [
        entry.name
        for workload in chosen
        for operation in workload.passes().values()
        for entry in registry.implementations(operation, device.name)
    ]
    return choose("implementation", words, dict.fromkeys(there))


def _peers(words: str | None) -> list[str]:
    if words == "none":
        return []
    if words is not None:
        return [name for name in words.split(",") if peers.load(name) is not None]
    return [name for name in peers.PEERS if peers.available(name)]


def _chosen(words: list[str]) -> list[Workload]:
    """The workloads of the operations that are named, forward or backward; those of "all"."""
    known = workloads()
    names = ",".join("all" if word == "all" else word.removesuffix("_backward") for word in words)
    return [known[name] for name in choose("operation", "all" if "all" in names.split(",") else names, known)]


def _check_place(path: Path) -> None:
    """LabError if a file can't be written there: said before anything is measured."""
    if not path.parent.is_dir():
        raise LabError(f"can't write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise LabError(f"can't write {path}: it is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise LabError(f"can't write {path}: it may not be written there; name another place")


def _list(words: list[str], included: list[str], device: str) -> int:
    """What there is to run, of all operations or those that are named, also where there is no such device."""
    for path in included:
        include(path, device)
    for workload in _chosen(words or ["all"]):
        name = workload.operation
        print(f"{name} ({', '.join(workload.passes())}), sizes {','.join(workload.sizes)}")
        for preset, shapes in workload.presets.items():
            print(f"  --shapes {preset}: {'; '.join(map(workload.label, shapes))}")
        for option, values in workload.options.items():
            print(f"  --{option.replace('_', '-')} {','.join(str(value).lower() for value in values)}")
        for mode, operation in workload.passes().items():
            entries = registry.implementations(operation, device)
            print(f"  {mode}: {', '.join(entry.name for entry in entries)}")
    return 0
