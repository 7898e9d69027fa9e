"""Compiled kernels on disk: found again, never stale, whole when processes save at once, kept where one can write."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import minilm_kernels
import pytest

pytest.importorskip("numba")

PACKAGE = Path(minilm_kernels.__file__).parent

HELPER = """
from minilm_kernels.jit import jit
from .constants import ONE

@jit(inline=True)
def raised(x):
    return x + ONE
"""
KERNEL = """
import sys
import numpy as np
from minilm_kernels.jit import jit
from .helper import raised

@jit
def kernel(x):
    return raised(x)

for dtype in sys.argv[1:]:
    print(kernel(np.ones(1, dtype))[0])
print(sum(kernel.stats.cache_hits.values()), "hits", sum(kernel.stats.cache_misses.values()), "misses")
"""


def environment(cache: Path, **others: str) -> dict[str, str]:
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": path, **others}


@pytest.fixture
def mine(tmp_path):
    """A package of the user's own, with a kernel that inlines a helper with a constant, each in its file."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "constants.py").write_text("ONE = 1\n")
    (package / "helper.py").write_text(HELPER)
    (package / "kernel.py").write_text(KERNEL)

    def run(*dtypes: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "mine.kernel", *dtypes],
            cwd=tmp_path,
            env=environment(tmp_path / "cache"),
            text=True,
            stdout=subprocess.PIPE,
        )

    return package, run


def lines(process: subprocess.Popen) -> list[str]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.splitlines()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


def test_an_edit_of_what_is_inlined_is_seen(mine, tmp_path):
    package, run = mine
    assert lines(run("float32")) == ["2.0", "0 hits 1 misses"]
    first = files(tmp_path / "cache")
    assert lines(run("float32")) == ["2.0", "1 hits 0 misses"]
    assert files(tmp_path / "cache") == first
    (package / "constants.py").write_text("ONE = 2\n")
    assert lines(run("float32")) == ["3.0", "0 hits 1 misses"]
    assert len(files(tmp_path / "cache")) == len(first) == 1, "what is stale is removed"


def test_processes_that_compile_at_once_share_the_cache(mine, tmp_path):
    _, run = mine
    dtypes = ("float32", "float64", "int32")
    for process in [run(*dtypes), run(*dtypes[::-1]), run("float64")]:
        assert lines(process)[-1].endswith("misses")
    assert lines(run(*dtypes)) == ["2.0", "2.0", "2", "3 hits 0 misses"]
    assert len(files(tmp_path / "cache")) == 3
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_broken_file_is_compiled_anew(mine, tmp_path):
    _, run = mine
    lines(run("float32"))
    (file,) = files(tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:1000])
    assert lines(run("float32")) == ["2.0", "0 hits 1 misses"]
    assert lines(run("float32")) == ["2.0", "1 hits 0 misses"]


# Permissions don't bind root, unless it lacks the capability CAP_DAC_OVERRIDE, as programs started after this do.
HONOUR_PERMISSIONS = """
import ctypes, os, sys
if os.geteuid() == 0:
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def read_only_install():
    """A copy of the package that can't be written to, a home folder, and what runs Python code on the copy."""
    folder = Path(tempfile.mkdtemp(prefix="minilm-install-"))
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    home = folder / "home"
    home.mkdir()
    for path in (folder, *(folder / PACKAGE.name).rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222 | 0o444 | (0o111 if path.is_dir() else 0))
    (folder / PACKAGE.name).chmod(0o555)

    def run(code: str, **variables: str) -> subprocess.CompletedProcess:
        variables = {**environment(folder), "PYTHONPATH": str(folder), **variables}
        del variables["NUMBA_CACHE_DIR"]
        command = [sys.executable, "-B", "-c", HONOUR_PERMISSIONS, sys.executable, "-B", "-c", code]
        return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=120)

    yield folder, home, run
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


USE = "import numpy as np, minilm_kernels as k; print(k.global_norm([np.ones((4, 4), np.float32)]), k.__file__)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="makes folders read-only for root as Linux can")
def test_a_read_only_install_uses_the_users_cache_folder(read_only_install):
    folder, home, run = read_only_install
    result = run(USE, HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["4.0", str(folder / PACKAGE.name / "__init__.py")]
    assert files(home)
    assert not files(folder / PACKAGE.name)
    # Where nothing can be written to, the kernel runs all the same, and a warning says what to do.
    home.chmod(0o555)
    result = run(USE, HOME=str(home), XDG_CACHE_HOME=str(home / "none"))
    assert result.stdout.startswith("4.0"), result.stderr
    assert "set NUMBA_CACHE_DIR" in result.stderr


def test_the_sources_of_a_kernel_are_those_that_it_can_inline():
    from minilm_kernels.cache import sources

    names = {file.relative_to(PACKAGE).as_posix() for file in sources(PACKAGE / "softmax" / "cpu.py")}
    assert {"softmax/cpu.py", "vector_math.py", "chunks.py", "jit.py"} <= names
    assert not {"registry.py", "simd.py", "gelu/cpu.py"} & names
    names = {file.relative_to(PACKAGE).as_posix() for file in sources(PACKAGE / "attention" / "backward.py")}
    assert {"attention/forward.py", "attention/tiles.py", "simd.py"} <= names


READY = """
import sys
import numpy as np
import minilm_kernels as k
x = np.ones((2, 3), np.float32)
k.gelu(x), k.layer_norm(x), k.global_norm([x]), k.attention(x[None, None], x[None, None], x[None, None])
print("numba.np.npyimpl" in sys.modules)
"""


def test_a_second_process_loads_kernels_without_making_ready_to_compile(tmp_path):
    for compiles in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", READY], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.stdout == f"{compiles}\n", done.stderr
