"""Matrix products: gradients, parity, shapes that are empty, broadcast or do not fit."""

import numpy as np
import pytest
from devices import beside

import minilm
from minilm import ops

CASES = {
    "matrices": (ops.matmul, [(2, 3), (3, 4)], lambda a, b: a @ b),
    "row, matrix": (ops.matmul, [(3,), (3, 4)], lambda a, b: a @ b),
    "matrix, column": (ops.matmul, [(2, 3), (3,)], lambda a, b: a @ b),
    "row, column": (ops.matmul, [(3,), (3,)], lambda a, b: a @ b),
    "row, batch": (ops.matmul, [(3,), (2, 3, 4)], lambda a, b: a @ b),
    "batch, column": (ops.matmul, [(2, 2, 3), (3,)], lambda a, b: a @ b),
    "batch, matrix": (ops.matmul, [(2, 2, 3), (3, 4)], lambda a, b: a @ b),
    "matrix, batch": (ops.matmul, [(2, 3), (4, 3, 2)], lambda a, b: a @ b),
    "batches": (ops.matmul, [(2, 2, 3), (2, 3, 2)], lambda a, b: a @ b),
    "batches, broadcast": (ops.matmul, [(2, 1, 2, 3), (3, 3, 2)], lambda a, b: a @ b),
    "batch of one": (ops.matmul, [(1, 2, 3), (4, 3, 2)], lambda a, b: a @ b),
    "length 1": (ops.matmul, [(1, 1), (1, 1)], lambda a, b: a @ b),
    "no rows": (ops.matmul, [(0, 3), (3, 2)], lambda a, b: a @ b),
    "inner length 0": (ops.matmul, [(2, 0), (0, 3)], lambda a, b: a @ b),
    "batch, inner length 0": (ops.matmul, [(2, 2, 0), (0, 3)], lambda a, b: a @ b),
    "batch, no columns": (ops.matmul, [(2, 2, 3), (3, 0)], lambda a, b: a @ b),
    "with its own transpose": (lambda a: a @ a.T, [(2, 3)], lambda a: a @ a.T),
    "with an array": (lambda a: beside(a, np.ones((2, 3)).astype(a.dtype)) @ a, [(3, 2)], None),
    "linear": (ops.linear, [(2, 3), (4, 3), (4,)], lambda x, w, b: x @ w.T + b),
    "linear, no bias": (ops.linear, [(2, 2, 3), (4, 3)], lambda x, w: x @ w.T),
    "linear, one row": (ops.linear, [(3,), (4, 3), (4,)], lambda x, w, b: x @ w.T + b),
    "linear, io": (lambda x, w, b: ops.linear(x, w, b, layout="io"), [(2, 2, 3), (3, 4), (4,)], None),
    "linear, no rows": (ops.linear, [(0, 3), (4, 3), (4,)], lambda x, w, b: x @ w.T + b),
    "linear, no features": (ops.linear, [(2, 0), (4, 0), (4,)], lambda x, w, b: x @ w.T + b),
    "linear, no outputs": (ops.linear, [(2, 2, 3), (0, 3), (0,)], lambda x, w, b: x @ w.T + b),
}


@pytest.mark.parametrize("name", CASES)
def test_product(name, check):
    check(*CASES[name])


REFUSED = {
    "inner lengths": (lambda x: x @ x, r"matmul of shapes \(2, 3\) and \(2, 3\): the inner lengths differ"),
    "no axes": (lambda x: x @ minilm.tensor(2.0), "at least one axis"),
    "linear": (lambda x: ops.linear(x, x.T), r"x \(2, 3\) with weight \(3, 2\) in layout 'oi'"),
    "linear's bias": (lambda x: ops.linear(x, x, x), r"linear's bias has shape \(2, 3\); expected \(2,\)"),
    "layout": (lambda x: ops.linear(x, x, layout="io "), "layout is 'oi' .* or 'io'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call(minilm.tensor(np.ones((2, 3)), requires_grad=True))


def test_a_list_may_stand_in_a_product():
    x = minilm.tensor([[1.0, 2.0]], requires_grad=True)
    y = [[1.0], [2.0]] @ x
    assert y.tolist() == [[1, 2], [2, 4]]
    y.sum().backward()
    assert x.grad.tolist() == [[3, 3]]
