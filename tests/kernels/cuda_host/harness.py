"""CUDA programs run on NumPy arrays: their sources compiled by g++ against the emulator, and launched through ctypes.

    with emulated():                                   # or the fixture of that name
        cuda_kernel_of_an_operation(numpy_arrays)      # whose Program now runs on the host

The stand-in's arrays do as well, where that is installed: then what else a kernel's Python does is held to CuPy's ways.

An emulated launch holds the arguments to the kernel's declaration, which no compiler does for a real one: how many
there are, the C type of each number, the size and kind of each array's elements. Arrays are copied to where a page that
must not be touched follows their last element; those that the kernel may write to are copied back.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import re
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from fake_cupy.arrays import unwrapped
from minilm_kernels.cuda import compiler, program, tensor_map

HERE = Path(__file__).parent
FLAGS = [
    *("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-Winvalid-pch"),
    *("-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-ffp-contract=off"),
    *("-fsanitize=alignment,bounds-strict,integer-divide-by-zero", "-fsanitize-undefined-trap-on-error"),
    *("-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused", "-DMINILM_HOST"),
]
_BOUNDS = r"__launch_bounds__\s*\([^()]*(?:\([^()]*\)[^()]*)*\)"
_KERNEL = re.compile(rf"__global__\s+(?:void\s+)?(?:{_BOUNDS}\s*)?(?:void\s+)?(\w+)\s*\(")
_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


class KernelError(RuntimeError):
    """An emulated kernel did what it must not; the message says which thread, and what."""


class Emulator:
    """Stands where CuPy stands for `minilm_kernels.cuda`: loads programs as shared libraries, launches on the host."""

    def __init__(self, folder: Path, *, descending: bool = False, capability: int = 80) -> None:
        self.folder, self.descending, self.capability = Path(folder), descending, capability
        self.launches: list[str] = []

    def current(self):
        return self  # what is loaded for one emulator is not another's

    def properties(self) -> program.DeviceProperties:
        return program.DeviceProperties(self.capability, multiprocessors=4, shared_bytes=232448)

    def load(self, source: program.Program, name: str):
        library = _library(self.folder, source.path, tuple(sorted(source.defines.items())))
        signature = getattr(library, f"signature_{name}", None)
        if signature is None:
            raise KernelError(f"{source.path} has no kernel {name}")
        signature.restype = ctypes.c_char_p
        codes = signature().decode().split()
        run = getattr(library, f"launch_{name}")
        run.restype = ctypes.c_char_p

        def launch(grid, block, args, shared_bytes):
            self.launches.append(name)
            _launch(run, name, codes, grid, block, unwrapped(args), shared_bytes, self.descending)

        return launch


@contextmanager
def emulated(folder, **settings):
    """Kernels of `minilm_kernels.cuda` run on NumPy arrays while this is open."""
    emulator, former, driver = Emulator(folder, **settings), program._runtime, tensor_map._encode
    program._runtime, tensor_map._encode = emulator, _host_tensor_map
    try:
        yield emulator
    finally:
        program._runtime, tensor_map._encode = former, driver
        program._properties.pop(emulator, None)


def missing() -> str | None:
    """Why nothing can be emulated here; None where it can."""
    if sys.platform != "linux":
        return "the emulator of CUDA runs on Linux"
    return None if shutil.which("g++") else "the emulator of CUDA needs g++, which is not installed"


@cache
def _library(folder: Path, path: Path, defines: tuple) -> ctypes.CDLL:
    """The source compiled for the host."""
    names = _KERNEL.findall("\n".join(file.read_text() for file in compiler.sources(path)))
    macros = "".join(f"#define {name} {value}\n" for name, value in defines)
    kernels = "".join(f"MINILM_KERNEL({name})\n" for name in names)
    out = folder / f"{path.stem}-{hashlib.sha256(repr((str(path), defines)).encode()).hexdigest()[:16]}"
    out.with_suffix(".cpp").write_text(f'{macros}#include "{path}"\n{kernels}')
    includes = [f"-I{_precompiled(folder)}", f"-I{path.parent}", f"-I{compiler.HEADERS}", "-include", "emulator.h"]
    arguments = ["-x", "c++", "-shared", *includes, str(out.with_suffix(".cpp")), "-o", str(out.with_suffix(".so"))]
    _compile(arguments, f"{path} with {dict(defines)}")
    return ctypes.CDLL(str(out.with_suffix(".so")))


@cache
def _precompiled(folder: Path) -> Path:
    """A folder with the emulator's header as g++ reads it fastest: most of what it takes to compile a kernel."""
    place = folder / "precompiled"
    place.mkdir()
    _compile(["-x", "c++-header", str(HERE / "emulator.h"), "-o", str(place / "emulator.h.gch")], "the emulator")
    return place


def _compile(arguments: list[str], what: str) -> None:
    done = subprocess.run(["g++", *FLAGS, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise KernelError(f"g++ does not compile {what}:\n{done.stderr[:6000]}")


def _launch(run, name, codes, grid, block, args, shared_bytes, descending) -> None:
    if len(args) != len(codes):
        raise KernelError(f"{name} takes {len(codes)} arguments, {' '.join(codes)}, and got {len(args)}")
    guarded: dict[tuple, _Guarded] = {}
    keep, pointers = [], []
    for number, (arg, code) in enumerate(zip(args, codes)):
        wrong = _mismatch(arg, code)
        if wrong:
            raise KernelError(f"argument {number} of {name} is {wrong}; the kernel takes {code}")
        if isinstance(arg, np.ndarray):
            if arg.flags.c_contiguous and arg.size:
                key = arg.ctypes.data, arg.nbytes
                if key not in guarded:
                    guarded[key] = _Guarded(arg, number)
                copy = guarded[key]
                copy.changed |= not code.startswith("*c")
                value = ctypes.c_void_p(copy.address)
            else:
                value = ctypes.c_void_p(arg.ctypes.data)
        elif arg is None:
            value = ctypes.c_void_p(None)
        else:
            value = ctypes.create_string_buffer(arg.tobytes())
        keep.append(value)
        pointers.append(ctypes.addressof(value))
    table = (ctypes.c_void_p * len(pointers))(*pointers)
    sizes = [(ctypes.c_uint * 3)(*three) for three in (grid, block)]
    error = run(*sizes, ctypes.c_size_t(shared_bytes), table, ctypes.c_int(descending))
    if error is not None:
        raise KernelError(f"{name}: {_explained(error.decode(), guarded)}")
    for copy in guarded.values():
        copy.close(name)


def _mismatch(arg, code: str) -> str | None:
    """What an argument is if it is not what the code (kernels.h) asks for."""
    if arg is None:
        return None if code[0] == "*" else "None"
    if isinstance(arg, np.ndarray):
        element = code.lstrip("*").removeprefix("c")
        kind, size, width = element[0], int(element[1:]), arg.dtype.itemsize
        if kind == "V":  # a 16-bit number, or a pack of several numbers
            good = size % width == 0
        else:
            good = kind == arg.dtype.kind and size == width
        good = good and code[0] == "*"
        return None if good else f"an array of {arg.dtype}"
    if isinstance(arg, np.generic):
        return None if f"{arg.dtype.kind}{arg.dtype.itemsize}" == code else f"a numpy.{arg.dtype}"
    return f"a {type(arg).__name__}, which has no C type"


def _explained(error: str, guarded: dict[tuple, _Guarded]) -> str:
    """The error, with the argument after which an address lies."""
    address = re.search(r"address (0x[0-9a-f]+)", error)
    for copy in guarded.values():
        if address and copy.guard <= int(address[1], 16) < copy.guard + _PAGE:
            where = f"past the end of argument {copy.number}, an array {copy.array.shape} of {copy.array.dtype}"
            return f"{error}: {where}"
    return error


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy of a contiguous array with a page behind it that must not be touched, for kernels that get addresses."""
    return _Guarded(array, 0).data.view(array.dtype).reshape(array.shape)


class _Guarded:
    """A copy of an array, 16 bytes aligned, before a page that must not be touched."""

    def __init__(self, array: np.ndarray, number: int) -> None:
        self.array, self.number, self.changed = array, number, False
        room = -(-array.nbytes // _PAGE) * _PAGE
        self.memory = mmap.mmap(-1, room + _PAGE)
        start = (room - array.nbytes) // 16 * 16
        self.view = np.frombuffer(self.memory, np.uint8, room)
        self.view[:] = 0xFF
        self.data, self.after = self.view[start : start + array.nbytes], self.view[start + array.nbytes :]
        self.data[:] = array.reshape(-1).view(np.uint8)
        base = self.view.ctypes.data
        self.address = base + start
        self.guard = base + room
        _protect(self.guard, 0)

    def close(self, name: str) -> None:
        _protect(self.guard, mmap.PROT_READ | mmap.PROT_WRITE)
        if (self.after != 0xFF).any():
            raise KernelError(f"{name} wrote past the end of an array {self.array.shape} of {self.array.dtype}")
        if self.changed:
            self.array.reshape(-1).view(np.uint8)[:] = self.data


def _host_tensor_map(address: int, dtype: str, sizes, strides, box) -> bytes:
    """HostMap in sm90_host.h, in the 128 bytes that the driver's tensor map takes; its errors are ours."""
    two = np.dtype(np.float16).itemsize
    if not (
        address % 16 == 0
        and all(0 < size <= 2**32 for size in sizes)
        and all(0 < stride < 2**40 and stride % 16 == 0 for stride in strides)
        and all(0 < size <= 256 for size in box)
        and two * box[0] <= 128  # what is swizzled
    ):
        raise KernelError(f"no tensor map is made of {dtype}, sizes {sizes}, strides {strides} and boxes {box}")
    fields = struct.pack("IIQ4I4I4Q", 0x90A90A, two, address, *sizes, *box, two, *strides)
    return fields.ljust(128, b"\0")


def _protect(address: int, allowed: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), ctypes.c_int(allowed)) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")
