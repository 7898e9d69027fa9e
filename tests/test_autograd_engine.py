"""The walk: what arrives where, what is kept and freed, what is refused; long chains."""

import gc
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import ops
from minilm.autograd import Array, op


def test_backward_of_one_element_needs_no_gradient_and_others_do():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"shape \(2,\) needs a gradient of that shape.*\.sum\(\)"):
        (x * x).backward()
    with pytest.raises(ValueError, match=r"shape \(2,\) has shape \(1,\); they must agree"):
        (x * x).backward([1.0])


@pytest.mark.parametrize("gradient", [[1.0, 10.0], np.array([1, 10]), minilm.tensor([1.0, 10.0]), (1, 10)])
def test_the_seed_may_be_anything_like_an_array(gradient):
    x = leaf([1.0, 2.0])
    (3 * x).backward(gradient)
    assert x.grad.tolist() == [3, 30]
    assert x.grad.dtype == np.float64


def test_gradients_accumulate_over_several_backwards():
    x = leaf([1.0, 2.0])
    for times in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2 * times, 4 * times]
    x.zero_grad()
    assert x.grad is None


def test_an_input_used_in_many_ways_gets_the_sum():
    x = leaf(3.0)
    y = x * x + x  # x takes part three times, without axes
    z = y * x + y
    z.backward()
    assert x.grad.item() == (2 * 3 + 1) * 3 + 12 + (2 * 3 + 1)
    assert isinstance(x.grad.data, np.ndarray)


def test_the_sum_of_two_gradients_without_axes_is_an_array():
    x = leaf(3.0)
    (x + x).backward()
    assert isinstance(x.grad.data, np.ndarray)
    x.grad.zero_()
    assert x.grad.item() == 0


def test_backward_of_a_leaf_is_its_seed():
    x = leaf([1.0, 2.0])
    seed = np.array([3.0, 4.0])
    x.backward(seed)
    assert x.grad.tolist() == [3, 4]
    assert not np.shares_memory(x.grad.data, seed)


def _arrays(create_graph):
    """Leaves whose gradients are, to the engine, one array: the seed itself, passed through by every rule."""
    a, b, c = leaf([1.0, 2.0]), leaf([3.0, 4.0]), leaf([[1.0, 1.0]])
    seed = minilm.tensor(np.ones((1, 2)))
    y = a + (b + c).reshape(1, 2)
    y.backward(seed, create_graph=create_graph)
    return [seed.data, *(x.grad.data for x in (a, b, c))]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_shares_memory_with_nothing(create_graph):
    arrays = _arrays(create_graph)
    for i, one in enumerate(arrays):
        assert one.flags.writeable
        assert not any(np.shares_memory(one, other) for other in arrays[:i])


def test_what_grad_returns_can_be_written_to():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = np.ones(2)
    y = a + b
    for outputs, weights in [(y, seed), (ops.broadcast_to(y, (3, 2)).sum(), None)]:
        first, second = minilm.grad(outputs, [a, b], weights, retain_graph=True)
        first.fill_(7)
        assert second.tolist() != first.tolist()
    assert seed.tolist() == [1, 1]
    first, again = minilm.grad((a * b).sum(), [a, a])
    first.fill_(7)
    assert again.tolist() == [3, 4]


def test_a_gradient_that_somebody_put_there_is_a_tensor():
    x = leaf([1.0, 2.0])
    x.grad = np.ones(2)
    with pytest.raises(TypeError, match=r"\.grad of a leaf is a ndarray; expected a Tensor"):
        (x * 2).sum().backward()


def test_gradients_have_their_inputs_shape_dtype_and_layout():
    x = leaf(np.asfortranarray(np.ones((3, 4))), "float32")
    w = leaf(np.ones((1, 4)), "float64")
    (x.T * w.T).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.data.flags.c_contiguous
    assert w.grad.shape == (1, 4)


# What is walked, kept and freed.


def test_a_second_walk_is_refused_by_name_and_retain_graph_allows_it():
    x = leaf([1.0, 2.0])
    y = ops.exp(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([1, 2]))
    with pytest.raises(RuntimeError, match=r"freed by an earlier backward \(at sum\).*retain_graph=True"):
        y.backward()


def test_a_part_of_the_graph_that_was_freed_is_named():
    x = leaf([1.0, 2.0])
    shared = ops.exp(x)
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="at exp"):
        (shared * 2).sum().backward()


def test_only_what_the_rules_name_is_kept():
    x, w = leaf(np.ones((2, 2))), leaf(np.ones((2, 2)))
    constant = minilm.tensor(np.ones((2, 2)))
    assert (x + w)._node.kept == {}
    assert set(ops.exp(x)._node.kept) == {"y"}
    assert set((x * w)._node.kept) == {"a", "b"}
    assert set((x * constant)._node.kept) == {"b"}  # constant's gradient is not wanted, so x is not needed
    assert set(x.sum()._node.kept) == {"x_shape"}


def test_memory_is_freed_as_the_walk_goes():
    """Halfway back, the arrays that the second half of the graph kept are gone, and those of the first half are not."""
    x = leaf(np.ones(4))
    kept = []
    y = x
    for _ in range(6):
        y = ops.exp(y * 0.1)
        kept.append(weakref.ref(y._node.kept["y"]))
    seen = []
    z = y * 1.0
    node = y._node
    for _ in range(6):  # a hook on the input of the third exp from the end
        node = node.edges[0][0]
    node.hooks_of(0).append(lambda g: seen.append([ref() is None for ref in kept]))
    del y, node
    z.sum().backward()
    assert len(seen) == 1
    freed = seen[0]
    assert freed == sorted(freed)  # from the end
    assert 0 < sum(freed) < 6
    assert all(ref() is None for ref in kept)


def test_backward_peaks_at_a_few_arrays():
    n, length = 250_000, 30
    x = leaf(np.full(n, 0.5), "float32")
    tracemalloc.start()
    y = x
    for _ in range(length):
        y = ops.exp(-y)
    loss = y.sum()
    del y
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    loss.backward()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    array = 4 * n
    assert before > (length - 1) * array
    assert peak < before + 4 * array  # gradients live as long as it takes to use them
    assert after < 4 * array


def test_a_graph_that_is_dropped_is_gone_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.ones(3))
        y = ops.softmax(ops.exp(x) * 2)
        ref = weakref.ref(y._node)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_no_gradient_is_computed_that_nobody_asked_for():
    ran = []

    @op
    def product(a: Array, b: Array):
        return a * b

    @product.gradient("a")
    def _(g, b):
        ran.append("a")
        return g * b

    @product.gradient("b")
    def _(g, a):
        ran.append("b")
        return g * a

    x, y = leaf([1.0]), leaf([2.0])
    product(x, minilm.tensor([2.0])).backward()
    assert ran == ["a"]
    ran.clear()
    minilm.grad(product(x, y), y)
    assert ran == ["b"]
    ran.clear()
    minilm.grad(product(x, y) + product(x, y * 1.0), y)  # through one, past the other's other input
    assert ran == ["b", "b"]


# Size.


def test_a_chain_of_ten_thousand_and_a_hundred_thousand_operations_in_linear_time():
    def walk(length):
        x = leaf(1.0)
        y = x
        for _ in range(length):
            y = y + 1.0
        start = time.process_time()
        y.backward()
        assert x.grad.item() == 1
        return time.process_time() - start

    walk(1000)
    short = min(walk(10_000) for _ in range(2))
    assert walk(100_000) < 10 * 3 * short


def test_a_wide_graph_with_shared_nodes_is_walked_once_each():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad.item() == 1


def test_a_deep_graph_is_dropped_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = -y
    del y
    assert x.grad is None
