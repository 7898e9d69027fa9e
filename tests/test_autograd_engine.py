"""The walk: what arrives where, what is kept and freed, what is refused; in-place changes found; long chains."""

import copy
import gc
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import minilm
from minilm import Tensor, no_grad, ops
from minilm.autograd import Array, enable_grad, engine, is_grad_enabled, op


def leaf(value, dtype="float64") -> Tensor:
    return minilm.tensor(value, dtype=dtype, requires_grad=True)


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


# grad().


def test_grad_leaves_the_leaves_alone():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    dx, dy = minilm.grad((x * y).sum(), [x, y])
    assert dx.tolist() == [3, 4]
    assert dy.tolist() == [1, 2]
    assert x.grad is None
    assert not dx.requires_grad


def test_grad_of_several_outputs_with_weights():
    x = leaf([1.0, 2.0])
    (g,) = minilm.grad([x * x, 3 * x, x.sum()], x, [minilm.tensor([1.0, 1.0]), np.array([1.0, 10.0]), None])
    assert g.tolist() == [2 + 3 + 1, 4 + 30 + 1]
    with pytest.raises(ValueError, match="1 outputs and 2 grad_outputs"):
        minilm.grad(x.sum(), x, [1.0, 1.0])


def test_grad_with_respect_to_what_was_computed():
    x = leaf([1.0, 2.0])
    y = x * x
    z = ops.exp(y)
    loss = (z * y).sum()
    dy, dz, dx = minilm.grad(loss, [y, z, x], retain_graph=True)
    np.testing.assert_allclose(dz.numpy(), y.numpy())
    np.testing.assert_allclose(dy.numpy(), z.numpy() + y.numpy() * z.numpy())  # through z as well
    np.testing.assert_allclose(dx.numpy(), dy.numpy() * 2 * x.numpy())
    assert minilm.grad(loss, loss)[0].item() == 1


def test_grad_of_one_of_several_outputs_of_an_operation():
    x = leaf(np.arange(6.0))
    first, second = x.split(2)
    assert minilm.grad((first * second).sum(), second)[0].tolist() == [0, 1, 2]
    first, second = x.split(2)
    assert minilm.grad((first * first).sum(), [x, second], allow_unused=True)[0].tolist() == [0, 2, 4, 0, 0, 0]


def test_grad_of_an_input_that_is_not_used(device):
    x, y = leaf([1.0]), leaf([1.0])
    assert minilm.grad(x * 2, [x, y], allow_unused=True)[1] is None
    with pytest.raises(ValueError, match=r"do not depend on input 1 of grad \(shape \(1,\)\); pass allow_unused=True"):
        minilm.grad(x * 2, [x, y])
    with pytest.raises(ValueError, match=r"input 0 of grad .* does not require a gradient"):
        minilm.grad(x * 2, minilm.tensor([1.0], device=device))


def test_higher_derivatives():
    x = leaf(2.0)
    y = x**5
    derivatives = []
    for order in range(5):
        (y,) = minilm.grad(y, x, create_graph=order < 4)
        derivatives.append(y.item())
    assert derivatives == [80, 160, 240, 240, 120]


def test_a_hessian_times_a_vector(rng):
    x, v = leaf(rng.standard_normal(4)), rng.standard_normal(4)
    matrix = rng.standard_normal((4, 4))
    y = x @ minilm.tensor(matrix) @ x
    (g,) = minilm.grad(y, x, create_graph=True)
    (hv,) = minilm.grad(g, x, v)
    np.testing.assert_allclose(hv.numpy(), (matrix + matrix.T) @ v, rtol=1e-12)


def test_backward_with_create_graph_accumulates_differentiably():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    (x**2).backward(create_graph=True)
    assert x.grad.item() == 12 + 4
    total = x.grad
    x.zero_grad()
    total.backward()
    assert x.grad.item() == 12 + 2


def test_create_graph_goes_through_a_chain_of_fused_operations_in_linear_time(monkeypatch):
    """The walk through a composition must end at its inputs, and not go on through all that is behind them."""
    visited = []
    order = engine._order
    monkeypatch.setattr(engine, "_order", lambda outputs: visited.append(len(found := order(outputs))) or found)

    def visits(length):
        visited.clear()
        x = leaf(np.ones((1, 2)))
        y = x
        for _ in range(length):
            y = ops.gelu(y)
        minilm.grad(y.sum(), x, create_graph=True)
        return sum(visited)

    assert visits(80) < 2.1 * visits(40)


# In-place changes.


def test_an_input_changed_in_place_is_named():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (x * w).sum()
    with no_grad():
        w[0] = 5
    with pytest.raises(
        RuntimeError, match=r"multiply kept 'b' for its gradient, and it was changed in place since \(1 "
    ):
        y.backward()


CHANGES = {
    "copy_": lambda t: t.copy_([7.0, 7.0]),
    "fill_": lambda t: t.fill_(7.0),
    "zero_": lambda t: t.zero_(),
    "add_": lambda t: t.add_(1.0),
    "mul_": lambda t: t.mul_([2.0, 2.0]),
    "an element": lambda t: t.__setitem__(0, 7.0),
    "through a view": lambda t: t[1:].fill_(7.0),
    "through detach": lambda t: t.detach().zero_(),
    "through tensor()": lambda t: minilm.tensor(t).zero_(),
    "data assigned": lambda t: setattr(t, "data", t.data + 1),
    "bump_version": lambda t: (t.data.__setitem__(0, 7.0), t.bump_version()),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kept", ["input", "output"])
def test_every_way_to_change_in_place_is_found(name, kept):
    x = leaf([1.0, 2.0])
    y = x * 1.0
    target = y if kept == "input" else ops.exp(y)
    z = (y * y if kept == "input" else target).sum()
    with no_grad():
        CHANGES[name](target)
    with pytest.raises(RuntimeError, match=r"(multiply kept 'a'|exp kept 'its output') .* changed in place"):
        z.backward()


def test_a_change_that_no_gradient_needs_is_allowed():
    x = leaf([1.0, 2.0])
    y = x + 1
    z = y.sum()
    with no_grad():
        y.fill_(0)
    z.backward()
    assert x.grad.tolist() == [1, 1]


def test_changes_in_place_are_refused_where_they_would_be_recorded(device):
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"fill_ changes a tensor in place.*no_grad\(\)"):
        x.fill_(0)
    plain = minilm.tensor([1.0, 2.0], device=device)
    with pytest.raises(RuntimeError, match="assignment to an element"):
        plain[0] = x[0]
    plain[0] = 5
    assert plain.tolist() == [5, 2]
    x += 1  # a new tensor, as of an immutable number
    assert not x.is_leaf


# Modes.


def test_no_grad_and_enable_grad_nest_and_decorate():
    x = leaf([1.0])
    with no_grad():
        assert not is_grad_enabled()
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not is_grad_enabled()

    @no_grad()
    def double(t):
        return t * 2

    assert not double(x).requires_grad
    assert is_grad_enabled()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_no_grad_is_of_one_thread():
    """Two threads in one decorated function, left in the order in which they came."""
    seen = {}
    inside, both, out = threading.Event(), threading.Event(), threading.Event()

    @no_grad()
    def shared(came, leave):
        came.set()
        assert leave.wait(10)
        return is_grad_enabled()

    def one():
        seen["one inside"] = shared(inside, both)
        seen["one after"] = is_grad_enabled()
        out.set()

    def other():
        assert inside.wait(10)
        with no_grad():
            seen["other inside"] = shared(both, out)
            seen["other after"] = is_grad_enabled()

    threads = [threading.Thread(target=t) for t in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"one inside": False, "other inside": False, "one after": True, "other after": False}
    assert is_grad_enabled()


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


# Tensors as objects.


def test_leaves_copy_deeply_and_others_refuse():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    twin = copy.deepcopy({"a": x, "b": x})
    assert twin["a"] is twin["b"]
    assert twin["a"].requires_grad
    assert twin["a"].grad.tolist() == [2, 4]
    twin["a"].data[0] = 9
    twin["a"].grad.data[0] = 9
    assert x.tolist() == [1, 2]
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="only leaf tensors can be deep-copied"):
        copy.deepcopy(x * 2)


def test_detach_shares_memory_and_no_history():
    x = leaf([1.0, 2.0])
    y = (x * 2).detach()
    assert y.is_leaf
    assert not y.requires_grad
    assert np.shares_memory(x.detach().data, x.data)


def test_requires_grad_is_for_floating_leaves(device):
    with pytest.raises(TypeError, match="floating-point tensors can require a gradient; this one is int64"):
        minilm.tensor([1], requires_grad=True, device=device)
    with pytest.raises(TypeError, match="int64"):
        minilm.tensor([1], device=device).requires_grad_()
    with pytest.raises(ValueError, match=r"detach\(\) first"):
        (leaf([1.0]) * 2).requires_grad_(False)
    x = minilm.tensor([1.0], device=device).requires_grad_()
    assert x.requires_grad
    assert not x.requires_grad_(False).requires_grad
    assert minilm.tensor([1.0], dtype="bfloat16", requires_grad=True, device=device).requires_grad


def test_backward_without_a_graph(device):
    with pytest.raises(ValueError, match="does not require a gradient"):
        minilm.tensor(1.0, device=device).backward()
    with no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(ValueError, match=r"made under no_grad\(\)"):
        y.backward()


def test_conversions(device):
    x = leaf(2.5)
    assert float(x) == 2.5
    assert int(x) == 2
    assert f"{x:.3f}" == "2.500"
    assert bool(x)
    assert [10, 20, 30][minilm.tensor(1, device=device)] == 20
    assert np.asarray(x) == 2.5
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    assert len(leaf([1.0, 2.0])) == 2
    assert [t.item() for t in leaf([1.0, 2.0])] == [1, 2]
    for call, error, message in [
        (lambda: leaf([1.0, 2.0]).item(), ValueError, "one element"),
        (lambda: bool(leaf([1.0, 2.0])), ValueError, "ambiguous"),
        (lambda: len(x), TypeError, "no length"),
        (lambda: [1][x], TypeError, "integer tensors"),
        (lambda: np.exp(x), TypeError, "ufunc"),
        (lambda: minilm.tensor("text", device=device), TypeError, "holds numbers"),
        (lambda: setattr(x, "data", x), TypeError, "raw array"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_repr_says_what_matters():
    x = leaf([1.0])
    assert repr(x) == "tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], dtype=float64, made by multiply)"
    assert repr(minilm.tensor([1.0])) == "tensor([1.])"
