"""`budgets.toml`: which variants of its sources an operation has, and how many registers their kernels may take.

    [[variant]]
    source = "layer_norm.cu"
    defines = { SCALAR = ["float", "f16", "bf16"], HEAD_SIZE = 64 }     # a list stands for a variant each
    targets = ["sm_90a"]                                                # if not all of sm_80, 89, 90, 90a and 100
    registers = { layer_norm = 40, layer_norm_backward = 48 }           # for a thread of each kernel, at most

Nothing may be spilled to memory. `python -m minilm_kernels.cuda.budgets [FOLDER ...]` compiles what the folders
(default: all of the package) declare and prints what each kernel takes: to write a budget from, or to see it kept.
"""

from __future__ import annotations

import itertools
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .compiler import compile_source
from .nvrtc import NvrtcMissing

__all__ = ["TARGETS", "Variant", "budget_files", "complaints", "variants"]

TARGETS = "sm_80", "sm_89", "sm_90", "sm_90a", "sm_100"
_KEYS = {"source", "defines", "targets", "registers"}


@dataclass(frozen=True)
class Variant:
    """One source with one set of macros, the targets that it is for, and its kernels' budgets of registers."""

    path: Path
    defines: dict
    targets: tuple[str, ...]
    registers: dict[str, int]

    def __str__(self) -> str:
        return " ".join([self.path.name, *[f"{name}={value}" for name, value in self.defines.items()]])


def budget_files(package: Path = Path(__file__).parents[1]) -> list[Path]:
    """All budgets of the package."""
    return sorted(package.rglob("budgets.toml"))


def variants(file: Path) -> list[Variant]:
    """The variants that a budgets.toml declares; ValueError for keys and targets that mean nothing."""
    found = []
    for entry in tomllib.loads(file.read_text(encoding="utf-8"))["variant"]:
        targets = tuple(entry.get("targets", TARGETS))
        if not set(entry) <= _KEYS or not set(targets) <= set(TARGETS) or not entry.get("registers"):
            raise ValueError(
                f"{file}: the variant {entry} has other keys than {sorted(_KEYS)}, other targets than {TARGETS}, or no "
                "kernel in registers"
            )
        defines = entry.get("defines", {})
        choices = [value if isinstance(value, list) else [value] for value in defines.values()]
        for values in itertools.product(*choices):
            chosen = dict(zip(defines, values))
            found.append(Variant(file.parent / entry["source"], chosen, targets, entry["registers"]))
    return found


def complaints(variant: Variant, target: str) -> list[str]:
    """What is wrong with a variant compiled for `target`: kernels over their budget, spilled, missing or unknown."""
    compiled = compile_source(variant.path, target, variant.defines)
    resources = compiled.resources
    # Such notes say that wgmma or setmaxnreg was not compiled as written: products one by one, an instruction ignored.
    found = [line.strip() for line in compiled.log.splitlines() if "(C75" in line]
    if set(resources) != set(variant.registers):
        found.append(f"has the kernels {sorted(resources)}, and budgets for {sorted(variant.registers)}")
    for kernel, used in resources.items():
        if used.spill_stores or used.spill_loads:
            found.append(f"{kernel} spills {used.spill_stores} bytes and loads {used.spill_loads}")
        if used.registers > variant.registers.get(kernel, 255):
            found.append(f"{kernel} takes {used.registers} registers, more than its {variant.registers[kernel]}")
    return [f"{variant} for {target}: {complaint}" for complaint in found]


def main(folders: list[str]) -> None:
    files = [file for folder in folders for file in budget_files(Path(folder))] if folders else budget_files()
    for file in files:
        for variant in variants(file):
            for target in variant.targets:
                for kernel, used in compile_source(variant.path, target, variant.defines).resources.items():
                    print(
                        f"{variant} {target} {kernel}: {used.registers} registers of {variant.registers.get(kernel)}, "
                        f"{used.spill_stores}/{used.spill_loads} bytes spilled, {used.shared_bytes} bytes shared"
                    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NvrtcMissing as error:
        sys.exit(f"python -m minilm_kernels.cuda.budgets: error: {error}")
