"""Compiling what the second half of a training step needs in a process of its own, while the first half is compiled.

Numba compiles a kernel at its first call, on one core, and a step's first call of everything takes half a minute after
an installation. Which kernel comes next can't be known before it is called; which ones a training step ends with can.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from .cores import available_cores

__all__ = ["compile_ahead"]

_started: list[subprocess.Popen] = []  # whoever drops one that still runs is warned by Python


def compile_ahead() -> subprocess.Popen | None:
    """Starts a process that compiles the backward kernels of a transformer into the cache; for programs that train.

    Does so once for a version of the kernels and a cache folder, and where there is a core to spare; returns the
    process, or None if none was started. Nobody need wait for it: a kernel that it is not done with, or failed at, is
    compiled when it is called, as without it.
    """
    if available_cores() < 2 or not _claim():
        return None
    command = [sys.executable, "-c", f"from {__name__} import _compile_all; _compile_all()"]
    paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        _started.append(subprocess.Popen(command, env=environment, start_new_session=True, **quiet))
    except OSError:
        return None
    return _started[-1]


def _claim() -> bool:
    """Whether this is the first process to ask for these sources in the cache's folder; leaves a file that says so."""
    from . import cache

    place = cache.folder()
    if place is None:
        return False
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        status = file.stat()
        digest.update(f"{file} {status.st_mtime_ns} {status.st_size}".encode())
    with contextlib.suppress(OSError):
        Path(place).mkdir(parents=True, exist_ok=True)
        with open(Path(place) / f"compiled-ahead.{digest.hexdigest()[:16]}", "x"):
            return True
    return False


def _compile_all() -> None:
    """Calls each kernel once, those first that take longest and come last in a step."""
    import numpy as np

    import minilm_kernels as kernels

    x, row = np.zeros((1, 2, 16, 8), np.float32), np.zeros((1, 2, 16), np.float32)
    rows, weight, mean = np.zeros((4, 8), np.float32), np.zeros(8, np.float32), np.zeros(4, np.float32)
    kernels.attention_backward(x, x, x, x, x, row, causal=True)
    kernels.gelu_backward(rows, rows, rows[0], approximate="tanh")
    kernels.add_layer_norm_backward(rows, rows, rows, weight, mean, mean)
    kernels.layer_norm_backward(rows, rows, weight, mean, mean)
    kernels.cross_entropy_backward(mean, rows, np.zeros(4, np.int64), mean)
    kernels.embedding_backward(rows, np.zeros(4, np.int64), rows.copy())
    kernels.global_norm([rows])
    kernels.adamw([rows.copy()], [rows], [rows.copy()], [rows.copy()], lr=0.1, step=1)
