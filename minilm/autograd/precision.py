"""The precisions that a run can be told to compute in, by the names that people use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minilm import backend

from .autocast import autocast

__all__ = ["PRECISIONS", "check_precision", "compute_in", "precision_notice"]

PRECISIONS = {"fp32": None, "tf32": None, "bf16": "bfloat16", "fp16": "float16"}  # with what `autocast` casts to


def check_precision(precision: str, device: str) -> None:
    """ValueError unless a model on `device` can compute in `precision`; tf32 is a mode of a GPU's tensor cores.

    >>> check_precision("tf32", "cpu")
    Traceback (most recent call last):
    ...
    ValueError: precision 'tf32' is how a GPU multiplies float32, and the device is 'cpu': ...
    """
    _autocast_dtype(precision)
    if precision == "tf32" and device != "cuda":
        raise ValueError(
            f"precision 'tf32' is how a GPU multiplies float32, and the device is {device!r}: use --device cuda, or "
            "precision 'fp32'"
        )


def precision_notice(precision: str, device: str) -> str | None:
    """What somebody who chose this precision for this device should know."""
    if _autocast_dtype(precision) is None or device == "cuda":
        return None
    return f"{precision} on the CPU is float32 that is rounded: it shows a GPU's numbers, and is slower than fp32"


@contextmanager
def compute_in(precision: str) -> Iterator[None]:
    """A `with` block for forward passes in `precision`, a name of `PRECISIONS`.

    >>> import minilm
    >>> x = minilm.tensor([[1.0]])
    >>> with compute_in("fp16"):
    ...     (x @ x).dtype
    dtype('float16')
    """
    with autocast(_autocast_dtype(precision)), backend.tf32(precision == "tf32"):
        yield


def _autocast_dtype(precision: str) -> str | None:
    """What `autocast` casts to in this precision; ValueError for an unknown one."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
