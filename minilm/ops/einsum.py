"""Einstein's summation, made of matrix products of two operands at a time."""

from __future__ import annotations

import math
import string

import numpy as np
from minilm_kernels.checks import is_half

from .elementwise import astype
from .linalg import matmul
from .reductions import sum
from .shape import broadcast_to, reshape, transpose

__all__ = ["einsum"]


def einsum(subscripts: str, *operands):
    """Einstein's summation, as NumPy's: `einsum("bhtd,bhsd->bhts", q, k)`; ellipses and repeated letters included.

    Each letter names an axis, and letters that the result doesn't have are summed over. Two operands are one batched
    matrix product, more are multiplied in the order that takes the least work. ValueError for letters that don't fit.

    >>> import numpy as np
    >>> einsum("bhtd,bhsd->bhts", np.ones((1, 2, 3, 4)), np.ones((1, 2, 5, 4))).shape
    (1, 2, 3, 5)
    """
    terms, out = _explicit(subscripts, operands)
    dtype = operands[0].dtype
    rounds_once = len(operands) > 2 and is_half(dtype)  # what is between two products stays in float32
    held = []
    for i, (term, x) in enumerate(zip(terms, operands)):
        term, x = _diagonal(term, astype(x, "float32") if rounds_once else x)
        elsewhere = set(out).union(*(terms[j] for j in range(len(terms)) if j != i))
        alone = tuple(a for a, letter in enumerate(term) if letter not in elsewhere)
        held.append(("".join(c for c in term if c in elsewhere), sum(x, alone) if alone else x))
    held = _spread(held)
    for step in _order(held, out):
        chosen = [held.pop(i) for i in sorted(step, reverse=True)]
        while len(chosen) > 1:
            left, right = chosen.pop(), chosen.pop()
            needed = set(out).union(*(term for term, _ in held + chosen))
            chosen.append(_product(*left, *right, needed))
        held += chosen
    ((term, x),) = held
    y = _arranged(x, term, out)
    return astype(y, dtype) if rounds_once else y


def _product(left: str, a, right: str, b, needed: set[str]):
    """The product of two operands as (its letters, it), summed over the letters that nobody needs any more."""
    both = [c for c in left if c in right]
    batch, summed = "".join(c for c in both if c in needed), "".join(c for c in both if c not in needed)
    rows, columns = ("".join(c for c in term if c not in both) for term in (left, right))
    lengths = dict(zip(left + right, (*a.shape, *b.shape)))

    def count(letters):
        return math.prod(lengths[c] for c in letters)

    out, shape = batch + rows + columns, tuple(lengths[c] for c in batch + rows + columns)
    a, b = _arranged(a, left, batch + rows + summed), _arranged(b, right, batch + summed + columns)
    lead = shape[: len(batch)]
    if not summed:
        ones = (1,) * len(columns), (1,) * len(rows)
        own = a.shape[len(lead) :], b.shape[len(lead) :]
        return out, _shaped(a, (*lead, *own[0], *ones[0])) * _shaped(b, (*lead, *ones[1], *own[1]))
    a, b = _shaped(a, (*lead, count(rows), count(summed))), _shaped(b, (*lead, count(summed), count(columns)))
    return out, _shaped(matmul(a, b), shape)


def _arranged(x, term: str, letters: str):
    """`x`, whose axes `term` names, with its axes in the order of `letters`."""
    return x if term == letters else transpose(x, tuple(term.index(c) for c in letters))


def _shaped(x, shape):
    return x if tuple(x.shape) == shape else reshape(x, shape)


def _order(held, out: str):
    """Which operands to multiply, step by step; a step's result is put at the end."""
    if len(held) < 3:
        return [(0, 1)][: len(held) - 1]
    shapes = (np.broadcast_to(np.float32(0), x.shape) for _, x in held)  # of no memory
    return np.einsum_path(f"{','.join(term for term, _ in held)}->{out}", *shapes, optimize="greedy")[0][1:]


def _spread(held):
    """The operands with axes of length 1 repeated to the length that others have under the same letter."""
    lengths: dict[str, int] = {}
    for i, (term, x) in enumerate(held):
        for c, n in zip(term, x.shape):
            if lengths.setdefault(c, n) == 1:
                lengths[c] = n
            elif n not in (1, lengths[c]):
                raise ValueError(
                    f"einsum: {c!r} names an axis of length {n} in operand {i}, and one of {lengths[c]} before it"
                )
    shapes = [tuple(lengths[c] for c in term) for term, _ in held]
    return [(term, x if tuple(x.shape) == s else broadcast_to(x, s)) for (term, x), s in zip(held, shapes)]


def _explicit(subscripts: str, operands) -> tuple[list[str], str]:
    """The terms and the output with letters for ellipses and the output that NumPy would infer."""
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(operands)}")
    free = [letter for letter in string.ascii_letters if letter not in subscripts]
    widths = [x.ndim - len(term.replace("...", "")) if "..." in term else 0 for term, x in zip(terms, operands)]
    dots = "".join(free[: max(widths, default=0)])
    for i, (term, x) in enumerate(zip(terms, operands)):
        terms[i] = term.replace("...", dots[len(dots) - widths[i] :])
        if len(terms[i]) != x.ndim:
            raise ValueError(f"einsum term {term!r} names {len(terms[i])} axes, operand {i} has {x.ndim}")
    letters = "".join(terms)
    if not arrow:
        return terms, dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots))
    out = out.replace("...", dots)
    wrong = [c for c in out if c not in letters or out.count(c) > 1]
    if wrong:
        raise ValueError(f"einsum {subscripts!r}: the result's {wrong[0]!r} must name one axis of an operand, once")
    return terms, out


def _diagonal(term: str, x):
    """A term without repeated letters, and the diagonal of x that it stands for."""
    letters = list(dict.fromkeys(term))
    if len(letters) == len(term):
        return term, x
    lengths = dict(zip(term, x.shape))
    if tuple(lengths[letter] for letter in term) != tuple(x.shape):
        raise ValueError(f"einsum term {term!r} repeats a letter for axes of different lengths, {tuple(x.shape)}")
    grid = dict(zip(letters, np.ogrid[tuple(slice(lengths[letter]) for letter in letters)]))
    return "".join(letters), x[tuple(grid[letter] for letter in term)]
