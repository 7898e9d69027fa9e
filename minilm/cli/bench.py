"""`minilm bench`: the kernel lab, which works without minilm too (`python -m minilm_kernels.bench`)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns 0, 1 where a kernel is wrong, or 2 for what can't be done."""
    from minilm_kernels.bench.command import main

    return main(arguments, prog="minilm bench")
