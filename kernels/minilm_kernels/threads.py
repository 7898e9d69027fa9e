"""How many threads compute: one number for NumPy's matrix products and for the kernels, which share one pool.

It is, at first, `OMP_NUM_THREADS` if that is set, and else the number of cores that this process may use.
"""

from __future__ import annotations

import operator
import os

from .cores import available_cores, requested

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """The number of threads that kernels and matrix products run on.

    >>> from minilm_kernels import get_num_threads, set_num_threads
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    from .pool import get_limit

    return get_limit()


def set_num_threads(n: int) -> None:
    """Has kernels and NumPy's matrix products run on `n` threads from now on, whichever Python thread calls them.

    No kernel's result depends on it; a product by OpenBLAS may, in its last bit. ValueError if `n` is not 1 or more, or
    more than the pool has; the pool is made when the first kernel is loaded, of a thread for each core, or of
    `OMP_NUM_THREADS` if that is more.

    >>> set_num_threads(0)
    Traceback (most recent call last):
    ...
    ValueError: the number of threads is 0; expected 1 or more
    """
    from .pool import SIZE, is_forked, set_limit

    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of threads is {n!r}; expected an integer, 1 or more") from None
    if count < 1:
        raise ValueError(f"the number of threads is {count}; expected 1 or more")
    if count > 1 and is_forked():
        raise ValueError(
            f"{count} threads were asked for in a forked process, which has only the one that forked; to compute on "
            "more, start it anew: multiprocessing.get_context('spawn')"
        )
    if count > SIZE:
        raise ValueError(
            f"{count} threads were asked for, and the pool has {SIZE}; to have more than the cores that may be used, "
            f"set OMP_NUM_THREADS={count} in the environment before the program starts"
        )
    set_limit(count)


def _make_room() -> None:
    """Has Numba make as many threads as OpenMP is to have; it looks, when it is imported, at a variable of its own."""
    try:
        count = requested() or 0
    except ValueError:
        return  # said when the pool is made
    if count > available_cores():
        os.environ.setdefault("NUMBA_NUM_THREADS", str(count))


_make_room()
