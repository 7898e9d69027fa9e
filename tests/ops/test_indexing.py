"""Indexing, gathering, scattering and sorting: NumPy's results; gradients add up where an element is picked twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minilm
from minilm import ops

APART = np.random.default_rng(4).permutation(12).reshape(3, 4) / 4.0
ROWS = np.array([[0, 2], [2, 2]])
PLACES = np.array([[0, 0], [3, 1], [2, 2]])

CASES = {
    "a row": (lambda x: x[1], [(3, 4)], lambda x: x[1]),
    "an element": (lambda x: x[1, -1], [(3, 4)], lambda x: x[1, -1]),
    "the only element": (lambda x: x[()], [()], None),
    "a slice": (lambda x: x[1:, ::2], [(3, 4)], lambda x: x[1:, ::2]),
    "a slice backwards": (lambda x: x[::-1], [(3, 4)], lambda x: x.flip(0)),
    "an empty slice": (lambda x: x[3:], [(3, 4)], lambda x: x[3:]),
    "new axes": (lambda x: x[None, ..., None, 0], [(3, 4)], lambda x: x[None, ..., None, 0]),
    "integers, repeated": (lambda x: x[ROWS], [(3, 4)], lambda x: x[ROWS]),
    "integers beside a slice": (lambda x: x[:, [1, 1, -1]], [(3, 4)], lambda x: x[:, [1, 1, -1]]),
    "integers in both": (lambda x: x[[0, 0, 2], [1, 1, 3]], [(3, 4)], lambda x: x[[0, 0, 2], [1, 1, 3]]),
    "integers around a slice": (lambda x: x[[0, 1], :, [1, 1]], [(2, 3, 2)], lambda x: x[[0, 1], :, [1, 1]]),
    "a mask": (lambda x: x[APART > 1], [(3, 4)], lambda x: x[_torch(APART > 1)]),
    "a mask of rows": (lambda x: x[[True, False, True]], [(3, 4)], lambda x: x[[True, False, True]]),
    "an empty mask": (lambda x: x[APART > 99], [(3, 4)], lambda x: x[_torch(APART > 99)]),
    "an empty list": (lambda x: x[[]], [(3, 4)], lambda x: x[[]]),
    "a tensor": (lambda x: x[minilm.tensor([2, 0, 2])], [(3, 4)], lambda x: x[[2, 0, 2]]),
    "a tensor without axes": (lambda x: x[minilm.tensor(1)], [(3,)], lambda x: x[1]),
    "the same element by two ways": (lambda x: x[0] * x[:, 1:2] + x[0, 0], [(2, 2)], None),
    "take": (lambda x: ops.take(x, [1, -1, 1], 1), [(3, 4)], lambda x: x[:, [1, -1, 1]]),
    "take, flat": (lambda x: ops.take(x, ROWS), [(3, 4)], lambda x: x.take(_torch(ROWS))),
    "take, one": (lambda x: x.take(1, axis=-1), [(3, 4)], lambda x: x[:, 1]),
    "repeat": (lambda x: x.repeat(2), [(3, 4)], lambda x: x.repeat_interleave(2)),
    "repeat, axis": (lambda x: x.repeat(3, 0), [(3, 4)], lambda x: x.repeat_interleave(3, 0)),
    "repeat, each": (lambda x: x.repeat([2, 0, 1], 0), [(3, 4)], None),
    "repeat, no times": (lambda x: x.repeat(0, 0), [(3, 4)], None),
    "gather": (lambda x: ops.gather(x, PLACES), [(3, 4)], lambda x: x.gather(-1, _torch(PLACES))),
    "gather, axis 0": (lambda x: ops.gather(x, np.array([[0, 1, 2, 0], [2, 2, 0, 0]]), 0), [(3, 4)], None),
    "gather, one axis": (lambda x: ops.gather(x, np.array([2, 2, 0])), [(4,)], lambda x: x[[2, 2, 0]]),
    "gather, broadcast": (lambda x: ops.gather(x, [[1, 1]]), [(3, 4)], lambda x: x[:, [1, 1]]),
    "scatter_add": (
        lambda x, v: ops.scatter_add(x, PLACES, v),
        [(3, 4), (3, 2)],
        lambda x, v: x.scatter_add(-1, _torch(PLACES), v),
    ),
    "scatter_add, axis 0": (lambda x, v: ops.scatter_add(x, [[0, 1], [0, 0], [2, 1]], v, 0), [(3, 2), (3, 2)], None),
    "scatter_add, one value": (lambda x: ops.scatter_add(x, PLACES, 2.0), [(3, 4)], None),
    "embedding": (
        lambda w: ops.embedding(ROWS, w),
        [(4, 3)],
        lambda w: _module().nn.functional.embedding(_torch(ROWS), w),
    ),
    "embedding, one": (lambda w: ops.embedding(2, w), [(4, 3)], None),
    "embedding, none": (lambda w: ops.embedding(np.zeros((2, 0), int), w), [(4, 3)], None),
    "embedding, tied": (lambda w: ops.embedding(ROWS, w) @ w.T + ops.embedding([1], w).sum(), [(4, 3)], None),
    "tril": (ops.tril, [(3, 4)], lambda x: x.tril()),
    "tril, k": (lambda x: ops.tril(x, -1), [(2, 3, 3)], lambda x: x.tril(-1)),
    "triu": (lambda x: ops.triu(x, 1), [(3, 4)], lambda x: x.triu(1)),
    "sort": (ops.sort, [APART], lambda x: x.sort().values),
    "sort, axis": (lambda x: ops.sort(x, 0), [APART], lambda x: x.sort(0).values),
    "sort, empty": (lambda x: ops.sort(x, 0), [(0, 2)], lambda x: x.sort(0).values),
    "topk": (lambda x: ops.topk(x, 2)[0], [APART], lambda x: x.topk(2).values),
    "topk, axis": (lambda x: ops.topk(x, 2, axis=0)[0], [APART], lambda x: x.topk(2, 0).values),
    "topk, smallest": (lambda x: ops.topk(x, 3, largest=False)[0], [APART], lambda x: x.topk(3, largest=False).values),
    "topk, none": (lambda x: ops.topk(x, 0)[0], [APART], None),
}


def _module():
    import torch

    return torch


def _torch(array):
    return _module().from_numpy(array)


@pytest.mark.parametrize("name", CASES)
def test_operation(name, check):
    check(*CASES[name])


def test_gradients_add_up_on_repeats(device):
    x = minilm.tensor([1.0, 2.0, 3.0], requires_grad=True, device=device)
    x[[0, 0, 2, 0]].backward([1.0, 10.0, 100.0, 1000.0])
    assert x.grad.tolist() == [1011, 0, 100]
    weight = minilm.tensor(np.zeros((3, 2), np.float32), requires_grad=True, device=device)
    ops.embedding([[1, 1], [1, 2]], weight).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [3, 3], [1, 1]]


@pytest.mark.parametrize("indices", [[[1, 1], [1, 2]], 1, 2, [], [1]])
def test_the_padding_row_of_a_table_gets_no_gradient(indices):
    values = np.arange(6.0).reshape(3, 2)
    grads = []
    for padding_idx in (None, 1):
        weight = minilm.tensor(values, requires_grad=True)
        out = ops.embedding(np.array(indices, int), weight, padding_idx)
        (grad,) = minilm.grad((out**3).sum(), [weight], create_graph=True)
        (again,) = minilm.grad(grad.sum(), [weight])
        np.testing.assert_array_equal(out.data, values[np.array(indices, int)])
        (plain,) = minilm.grad((ops.embedding(np.array(indices, int), weight, padding_idx) ** 3).sum(), [weight])
        np.testing.assert_array_equal(plain.data, grad.data)
        grads.append((grad.data, again.data))
    for everywhere, real in zip(*grads):
        np.testing.assert_array_equal(real, everywhere * [[1], [0], [1]])


@given(st.data())
def test_any_index_of_numpys_has_its_gradient(data):
    """Adding up into the elements picked: the gradient of x[index].sum() counts how often each one was."""
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    index = data.draw(
        st.one_of(
            hnp.basic_indices(shape, allow_newaxis=True),
            hnp.integer_array_indices(shape),
            hnp.arrays(bool, shape),
        )
    )
    x = minilm.tensor(np.arange(np.prod(shape), dtype=np.float64).reshape(shape), requires_grad=True)
    picked = x[index]
    np.testing.assert_array_equal(picked.numpy(), x.numpy()[index])
    picked.sum().backward()
    count = np.bincount(picked.numpy().ravel().astype(int), minlength=x.size)
    np.testing.assert_array_equal(x.grad.numpy().ravel(), count)


def test_gather_is_take_along_axis(rng):
    x = rng.standard_normal((2, 3, 4))
    for axis in range(-3, 3):
        indices = rng.integers(-1, 2, (2, 3, 4))
        np.testing.assert_array_equal(ops.gather(x, indices, axis), np.take_along_axis(x, indices, axis))


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_the_gradient_of_elements_picked_by_an_array_for_each_axis(shape, device, rng):
    x = minilm.tensor(np.zeros(shape), requires_grad=True, device=device)
    places = tuple(rng.integers(-n, n, (2, 30)) for n in shape)
    values = rng.standard_normal((2, 30))
    (x[places] * minilm.tensor(values, device=device)).sum().backward()
    expected = np.zeros(shape)
    np.add.at(expected, places, values)
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-14)


def test_gather_by_small_integers_of_a_long_axis(device):
    x = minilm.tensor(np.arange(600.0).reshape(2, 300), device=device)
    assert x.gather(np.array([[255], [3]], np.uint8)).tolist() == [[255], [303]]


def test_the_gradient_of_a_mask(device, rng):
    x = minilm.tensor(rng.standard_normal((4, 6)), requires_grad=True, device=device)
    mask = rng.random((4, 6)) < 0.5
    (x[mask] ** 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.where(mask, 2 * x.numpy(), 0))


def test_topk_and_sort_of_integers_and_ties(device):
    x = minilm.tensor(np.array([3, 250, 0, 250], np.uint8), device=device)
    values, places = x.topk(3)
    assert values.tolist() == [250, 250, 3]
    assert places.tolist() == [1, 3, 0]
    assert minilm.tensor([-(2**63), 5], device=device).topk(1)[0].tolist() == [5]
    assert x.topk(2, largest=False)[1].tolist() == [2, 0]
    assert x.sort().tolist() == [0, 3, 250, 250]
    raw = ops.topk(np.array([1.0, 2.0]), 1)
    assert all(isinstance(part, np.ndarray) for part in raw)


def test_numbers_that_are_added_neither_widen_floats_nor_are_cut_off():
    assert ops.scatter_add(np.ones(2, np.float32), [0], [0.5], 0).dtype == np.float32
    assert ops.scatter_add(np.ones(2, int), [0], [0.5], 0).tolist() == [1.5, 1]
    assert ops.scatter_add(np.ones(2, np.int64), [0], 2, 0).dtype == np.int64


@pytest.mark.parametrize("index", [(np.array([0, 3]), np.array([1, 0])), (np.array([0]), np.array([-3]))])
def test_values_are_placed_where_there_is_a_place(index):
    with pytest.raises(IndexError, match=r"index (3|-3) is out of bounds for axis [01] with size [32]"):
        ops.place(np.ones(len(index[0])), index, (3, 2))
    inside = ops.place(np.ones(2), (np.array([0, -1], np.int8), np.array([-2, 1], np.int8)), (3, 2))
    assert inside.tolist() == [[1, 0], [0, 0], [0, 1]]


REFUSED = {
    "out of range": (lambda x: x[5], IndexError, "index 5"),
    "take out of range": (lambda x: x.take([4], 1), IndexError, "index 4"),
    "take by floats": (lambda x: x.take([0.5], 0), TypeError, "integers, got float64"),
    "take along no axis": (lambda x: x.take([0], 2), np.exceptions.AxisError, "axis 2 is out of bounds"),
    "gather, axes": (lambda x: x.gather([0, 1]), ValueError, r"gather needs indices of x's shape \(3, 4\)"),
    "gather, lengths": (lambda x: x.gather([[0], [1]], 1), ValueError, r"they have shape \(2, 1\)"),
    "gather, out of range": (lambda x: x.gather([[4], [0], [0]]), IndexError, "index 4 .* axis 1 with size 4"),
    "gather, below": (lambda x: x.gather([[0, 0, 0, -4]], 0), IndexError, "index -4 .* axis 0 with size 3"),
    "scatter_add, out of range": (lambda x: x.scatter_add([[0], [9], [0]], 1.0), IndexError, "index 9"),
    "scatter_add, axes": (lambda x: x.scatter_add([0, 1], 1.0), ValueError, "scatter_add needs indices"),
    "topk too many": (lambda x: x.topk(5), ValueError, "0 <= k <= 4"),
    "embedding of floats": (lambda x: ops.embedding([0.5], x), TypeError, "integer indices, got float64"),
    "embedding too high": (lambda x: ops.embedding([1, 3], x), IndexError, r"index 3 is outside .* 0\.\.2"),
    "embedding below": (lambda x: ops.embedding([-1], x), IndexError, "index -1"),
    "embedding in a row": (lambda x: ops.embedding([0], x[0]), ValueError, r"table \(V, C\); .* shape \(4,\)"),
    "repeat by halves": (lambda x: x.repeat(1.5), TypeError, "repeats must be integers, got float64"),
    "repeat less than never": (lambda x: x.repeat(-1), ValueError, "one number or 12, .*; got -1"),
    "repeat too few": (lambda x: x.repeat([1, 2], axis=1), ValueError, r"one number or 4, .*; got \[1, 2\]"),
    "repeat along no axis": (lambda x: x.repeat(2, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name, device):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(minilm.tensor(np.ones((3, 4)), requires_grad=True, device=device))
