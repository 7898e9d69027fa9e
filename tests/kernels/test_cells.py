"""Cells that write to arrays they are given; the numbers are checked with all other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import gru_cell, gru_cell_backward, implementations, lstm_cell, lstm_cell_backward

B, C = 3, 5


def arrays(rng, *widths):
    return [rng.standard_normal((B, width * C), dtype=np.float32) for width in widths]


@pytest.mark.parametrize(
    ("function", "given", "results"),
    [(lstm_cell, (4, 1), (1, 1, 4)), (lstm_cell_backward, (1, 1, 4, 1, 1), (4, 1)), (gru_cell, (3, 3, 1), (1, 3)),
     (gru_cell_backward, (1, 3, 1, 3), (3, 3, 1))],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_results_go_where_they_are_asked_to(function, given, results, rng):
    given = arrays(rng, *given)
    for entry in implementations(function.__name__, device="cpu"):
        expected = function(*given, implementation=entry.name)
        into = tuple(np.full((B, width * C), np.nan, np.float32) for width in results)
        found = function(*given, into=into, implementation=entry.name)
        assert all(a is b for a, b in zip(found, into, strict=True))
        for a, b in zip(found, expected):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"into\[0\] has shape"):
        function(*given, into=(into[0][1:], *into[1:]))
    with pytest.raises(TypeError, match=r"into\[0\] is float64"):
        function(*given, into=(into[0].astype("f8"), *into[1:]))
    with pytest.raises(ValueError, match=r"into\[0\] is not C-contiguous"):
        function(*given, into=(np.asfortranarray(into[0]), *into[1:]))
    with pytest.raises(ValueError, match=f"into has 1 arrays; expected {len(results)}"):
        function(*given, into=into[:1])


def test_the_gradient_of_c_may_take_the_place_of_the_one_that_arrives(rng):
    g_h, g_c, activated, c, c_next = arrays(rng, 1, 1, 4, 1, 1)
    for entry in implementations("lstm_cell_backward", device="cpu"):
        dgates, dc = lstm_cell_backward(g_h, g_c, activated, c, c_next, implementation=entry.name)
        there = g_c.copy()
        into = np.empty_like(dgates), there
        lstm_cell_backward(g_h, there, activated, c, c_next, into=into, implementation=entry.name)
        np.testing.assert_array_equal(there, dc)
        np.testing.assert_array_equal(into[0], dgates)
