"""NVRTC, the compiler that is a library: found in NVIDIA's wheel or a toolkit, and called through ctypes.

Not through CuPy, whose own way to NVRTC picks the architecture itself and hands out no log of a compilation that went
well, in which registers and spills stand; and so that sources are compiled, and checked, where CuPy is not installed.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from pathlib import Path

__all__ = ["NvrtcMissing", "compile_program", "targets", "version"]

# Newest first: the library's name without the toolkit, and the wheels' folders in site-packages.
_LIBRARIES = "libnvrtc.so.13", "libnvrtc.so.12"
_WHEEL_FOLDERS = "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"


class NvrtcMissing(RuntimeError):
    """No NVRTC was found; the message says where it was looked for and how to get it."""


def compile_program(source: str, name: str, options: list[str]) -> tuple[bool, bytes, str]:
    """Compiles CUDA C++ for the architecture in `options`: (whether that went well, the cubin, the log)."""
    nvrtc, program = library(), c_void_p()
    _check(nvrtc.nvrtcCreateProgram(byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        values = (c_char_p * len(options))(*[option.encode() for option in options])
        ok = nvrtc.nvrtcCompileProgram(program, len(options), values) == 0
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        cubin = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program) if ok else b""
        return ok, cubin, log.rstrip(b"\0").decode(errors="replace")
    finally:
        nvrtc.nvrtcDestroyProgram(byref(program))


@cache
def version() -> tuple[int, int]:
    """The version of the NVRTC that was found: (13, 0), say."""
    major, minor = c_int(), c_int()
    _check(library().nvrtcVersion(byref(major), byref(minor)))
    return major.value, minor.value


@cache
def targets() -> tuple[int, ...]:
    """The compute capabilities that this NVRTC compiles for, as 10 major + minor: (75, 80, ...)."""
    count = c_int()
    _check(library().nvrtcGetNumSupportedArchs(byref(count)))
    values = (c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(values))
    return tuple(values)


@cache
def library() -> ctypes.CDLL:
    """The library, loaded; NvrtcMissing where there is none."""
    for path in _candidates():
        try:
            for builtins in Path(path).parent.glob("libnvrtc-builtins.so*") if os.path.isabs(path) else ():
                ctypes.CDLL(str(builtins))  # which the wheels of CUDA 13.0 don't look for beside themselves
            nvrtc = ctypes.CDLL(path)
        except OSError:
            continue
        nvrtc.nvrtcGetErrorString.restype = c_char_p
        return nvrtc
    raise NvrtcMissing(
        "NVRTC, which compiles the CUDA kernels, was not found in NVIDIA's wheels, in CUDA_PATH, in CUDA_HOME, in "
        "/usr/local/cuda or on the system's library path; install it with pip install nvidia-cuda-nvrtc (CUDA 13) or "
        "pip install nvidia-cuda-nvrtc-cu12 (CUDA 12)"
    )


def _candidates() -> list[str]:
    site_packages = Path(sysconfig.get_path("purelib"))
    folders = [site_packages / folder for folder in _WHEEL_FOLDERS]
    toolkits = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders += [Path(toolkit) / "lib64" for toolkit in toolkits if toolkit]
    found = [str(folder / name) for folder in folders for name in _LIBRARIES if (folder / name).exists()]
    return [*found, *_LIBRARIES]


def _text(size_of, read, program) -> bytes:
    size = c_size_t()
    _check(size_of(program, byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"NVRTC failed: {library().nvrtcGetErrorString(status).decode()}")
