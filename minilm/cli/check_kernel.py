"""`minilm check-kernel`: a kernel of one's own, held against the float64 reference on every awkward shape."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns 0 if all kernels are right, 1 if not, or 2 for a file that has none."""
    from minilm_kernels.bench.command import main

    return main(["check-kernel", *arguments], prog="minilm")
