"""A `.cu` file to a cubin: which files it is made of, how NVRTC is asked, what ptxas says of registers and spills."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import nvrtc

__all__ = ["CompileError", "Compiled", "Resources", "compile_source", "digest", "sources"]

HEADERS = Path(__file__).parent  # common.cuh and its kin, included by name from every operation's folder
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


class CompileError(RuntimeError):
    """A source did not compile; the message is NVRTC's log, with the lines of the files."""


@dataclass(frozen=True)
class Resources:
    """What a thread of a kernel takes: registers, bytes spilled to memory, and the block's static shared bytes."""

    registers: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """Machine code for one architecture, the log of making it, and each kernel's resources."""

    cubin: bytes
    log: str
    resources: dict[str, Resources]


def compile_source(
    path: str | Path, target: str, defines: Mapping[str, object] | None = None, options: Sequence[str] = ()
) -> Compiled:
    """Compiles the CUDA C++ file `path` for `target`, "sm_80" or "sm_90a" say, by NVRTC; no GPU is needed.

    `defines` are macros, name to value; `options` go to NVRTC as they are. CompileError has the log of what did not
    compile, NvrtcMissing says how to get the compiler.

        >>> from pathlib import Path
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "twice.cu"
        >>> _ = path.write_text('extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= FACTOR; }')
        >>> compile_source(path, "sm_80", {"FACTOR": 2}).resources["twice"].spill_stores  # doctest: +SKIP
        0
    """
    path = Path(path)
    arguments = [f"--gpu-architecture={target}", *_options(path, defines, options), "--ptxas-options=-v"]
    ok, cubin, log = nvrtc.compile_program(path.read_text(encoding="utf-8"), str(path), arguments)
    if not ok:
        macros = " ".join(f"-D{name}={value}" for name, value in (defines or {}).items())
        raise CompileError(f"{path} does not compile for {target} with {macros or 'no macros'}:\n{log}")
    return Compiled(cubin, log, _resources(log))


def sources(path: str | Path) -> list[Path]:
    """The file `path` and all that it includes, directly or not, sorted; FileNotFoundError for one that is missing."""
    found, waiting = set(), [Path(path)]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [_included(file, name) for name in _INCLUDE.findall(file.read_text(encoding="utf-8"))]
    return sorted(found)


def digest(path: str | Path, target: str, defines: Mapping[str, object], options: Sequence[str]) -> str:
    """A name for what `compile_source` makes: of the files' contents, macros, options, target and NVRTC's version."""
    stamp = hashlib.sha256(repr((target, sorted(map(str, defines.items())), list(options), nvrtc.version())).encode())
    for file in sources(path):
        stamp.update(hashlib.sha256(file.read_bytes()).digest())
    return stamp.hexdigest()[:24]


def _included(file: Path, name: str) -> Path:
    for folder in (file.parent, HEADERS):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f'{file} includes "{name}", which is neither in {file.parent} nor in {HEADERS}')


def _options(path: Path, defines: Mapping[str, object] | None, options: Sequence[str]) -> list[str]:
    folders = [f"--include-path={folder}" for folder in dict.fromkeys((path.parent, HEADERS))]
    macros = [f"--define-macro={name}={value}" for name, value in (defines or {}).items()]
    # What says of no function where it runs means the device: NVRTC 13.0 takes lambdas with `auto` for the host's.
    return ["--std=c++17", "--device-as-default-execution-space", *folders, *macros, *options]


def _resources(log: str) -> dict[str, Resources]:
    """Of ptxas' verbose lines: an entry's name, then its spills, then its registers and shared memory."""
    found: dict[str, Resources] = {}
    name, spills = None, (0, 0)
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            name, spills = match[1], (0, 0)
        elif match := _SPILLS.search(line):
            spills = int(match[1]), int(match[2])
        elif (match := _USED.search(line)) and name is not None:
            found[name] = Resources(int(match[1]), *spills, int(match[2] or 0))
            name = None
    return found
