"""`check-kernel`: a user's kernels against the float64 reference, on every dtype and awkward shape."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import registry
from .device import Device, device_named
from .errors import LabError
from .include import include
from .problem import Problem
from .workload import Workload, workload

__all__ = ["Case", "cases", "check", "run"]

_DESCRIPTION = (
    "Check a kernel of your own against the float64 reference, on every dtype it declares and awkward shapes."
)
_SHOWN = 5  # failures that are told in full, of each kernel and dtype


@dataclass(frozen=True)
class Case:
    """Sizes and options, a memory layout and the seed of the numbers."""

    parameters: dict[str, Any]
    layout: str
    seed: int

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.parameters.items()) + f", {self.layout}"


def cases(workload: Workload, seed: int = 0) -> Iterator[Case]:
    """Awkward cases, such that each value of each size and option and each layout occurs, among random others."""
    random = np.random.default_rng(seed)
    number = 0
    for name, values in [*workload.awkward.items(), ("layout", workload.layouts)]:
        for value in values:
            drawn = {key: choices[random.integers(len(choices))] for key, choices in workload.awkward.items()}
            layout = workload.layouts[random.integers(len(workload.layouts))]
            if name == "layout":
                layout = value
            else:
                drawn[name] = value
            yield Case(drawn, layout, seed + number)
            number += 1


def check(
    workload: Workload, mode: str, implementation: str, dtype: str, case: Case, device: Device | None = None
) -> str:
    """One case: "right", "refused: ..." by the kernel's own limits, or what is wrong."""
    problem = Problem(workload, mode, case.parameters, dtype, case.seed, case.layout, device)
    try:
        with np.errstate(all="ignore"):
            results = problem.run(implementation)
    except registry.Refused as error:
        return f"refused: {error}"
    except Exception as error:  # whatever it does wrong, the other cases are still of interest
        return f"{type(error).__name__}: {error}"
    return problem.verdict(results).fault or "right"


def dtypes(entry: registry.Implementation) -> list[str]:
    """The dtypes to check an implementation on: those that it declares."""
    return sorted(entry.dtypes or ("float32", "float64"))


def run(arguments: Sequence[str], prog: str) -> int:
    """The verb: checks all kernels of a file; returns 0 if they are right, 1 if not."""
    parser = argparse.ArgumentParser(prog=prog, description=_DESCRIPTION)
    parser.add_argument("file", help="a Python file that registers kernels with minilm_kernels.registry.register")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs and of how the cases are combined")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to check (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise LabError(f"--seed {options.seed}; expected 0 or more")
    device = device_named(options.device)
    entries = include(options.file, device.name)
    wrong = 0
    for entry in entries:
        chosen = workload(entry.operation.removesuffix("_backward"))
        mode = next(mode for mode, name in chosen.passes().items() if name == entry.operation)
        for dtype in dtypes(entry):
            wrong += not _report(chosen, mode, entry, dtype, options.seed, device)
    if wrong:
        return 1
    on = "" if device.name == "cpu" else f" --device {device.name}"
    print(f"right; time them: minilm bench {chosen.operation} --include {options.file}{on}")
    return 0


def _report(
    workload: Workload, mode: str, entry: registry.Implementation, dtype: str, seed: int, device: Device
) -> bool:
    """Checks one kernel in one dtype and says how it went; whether it is right."""
    outcomes: Counter[str] = Counter()
    reasons: set[str] = set()
    name = f"{entry.operation} by {entry.name!r}, {dtype}"
    for case in cases(workload, seed):
        found = check(workload, mode, entry.name, dtype, case, device)
        kind = found if found == "right" else "refused" if found.startswith("refused: ") else "wrong"
        outcomes[kind] += 1
        if kind == "refused":
            reasons.add(found.split(f"{entry.name!r}: ", 1)[-1])
        if kind == "wrong" and outcomes["wrong"] <= _SHOWN:
            print(f"  WRONG at {case}: {found}", flush=True)
    if outcomes["wrong"] > _SHOWN:
        print(f"  ... and {outcomes['wrong'] - _SHOWN} more")
    if outcomes["refused"]:
        print(f"  refused {outcomes['refused']}: {'; '.join(sorted(reasons))}")
    if outcomes["right"] + outcomes["wrong"] == 0:
        print(f"{name}: refused every case, so nothing of it was checked")
        return False
    print(f"{name}: right in {outcomes['right']} of {outcomes['right'] + outcomes['wrong']} cases", flush=True)
    return outcomes["wrong"] == 0
