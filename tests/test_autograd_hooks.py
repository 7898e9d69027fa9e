"""Gradient hooks on leaves, on what was computed and on what is shared; retain_grad; anomaly mode; trace."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import ops
from minilm.autograd import Array, detect_anomaly, op, trace


def test_a_hook_sees_the_whole_gradient_once():
    x = leaf([1.0, 2.0])
    y = x * 2
    seen = []
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    (y * 3 + y * x).sum().backward()
    assert seen == [("y", [4, 5]), ("x", [10, 14])]
    assert x.grad.tolist() == [10, 14]


def test_what_a_hook_returns_replaces_the_gradient():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: (g * 2).numpy())  # after the first, and as an array
    y.sum().backward()
    assert x.grad.tolist() == [42, 42]


def test_hooks_are_taken_off():
    x = leaf([1.0])
    remove = x.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g * 2)
    remove()
    remove()
    (x * 1).backward()
    assert x.grad.tolist() == [2]


def test_hooks_work_in_grad_and_are_differentiable():
    x = leaf([2.0])
    y = x * x
    y.register_hook(lambda g: g * x)
    (dy,) = minilm.grad(y, x, create_graph=True)
    assert dy.tolist() == [8]  # x * 2x
    (ddy,) = minilm.grad(dy, x)
    assert ddy.tolist() == [8]
    x.register_hook(lambda g: g * 100)
    assert minilm.grad(x * 3, x)[0].tolist() == [300]


def test_a_hook_on_one_output_of_several():
    x = leaf([1.0, 2.0])
    first, second = x.split(2)
    second.register_hook(lambda g: g * 10)
    (first + second).backward()
    assert x.grad.tolist() == [1, 10]


def test_a_hooks_dtype_and_shape(device):
    x = minilm.tensor([1.0, 2.0], requires_grad=True, device=device)
    x.register_hook(lambda g: g.numpy().astype(np.float64) * 2)
    (x * 1).sum().backward()
    assert x.grad.dtype == np.float32
    x.register_hook(lambda g: g[:1])
    with pytest.raises(ValueError, match=r"hook returned shape \(1,\) for a tensor of shape \(2,\)"):
        (x * 1).sum().backward()
    with pytest.raises(ValueError, match="needs a tensor that requires a gradient"):
        minilm.tensor([1.0], device=device).register_hook(print)


def test_a_hook_that_keeps_its_gradient_keeps_what_it_saw():
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    kept = []
    z = x + y
    z.register_hook(kept.append)
    ((z * 2) + z).sum().backward()
    with minilm.no_grad():
        x.grad.fill_(0)
    assert kept[0].tolist() == [3, 3]
    assert y.grad.tolist() == [3, 3]


def test_retain_grad_of_what_was_computed():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    seed = np.array([1.0, 10.0])
    z = y + 0.0
    z.backward(seed, retain_graph=True)
    assert y.grad.tolist() == [1, 10]
    assert not np.shares_memory(y.grad.data, seed)
    z.backward(seed)
    assert y.grad.tolist() == [2, 20]
    x.retain_grad()
    assert x.is_leaf


# Anomaly mode.


def test_anomaly_mode_names_the_forward_line_behind_the_first_bad_gradient():
    x = leaf([0.0, 1.0])
    with detect_anomaly(), np.errstate(all="ignore"):
        y = ops.sqrt(x)  # its gradient at 0 is inf
        z = (y * 2).sum()
        with pytest.raises(FloatingPointError) as caught:
            z.backward()
    message = str(caught.value)
    assert "the gradient of sqrt for its input 'x' has NaN or inf" in message
    place = re.search(r"called at (.*):(\d+) in (\w+)", message)
    assert place[1] == __file__
    assert "ops.sqrt(x)" in Path(__file__).read_text().splitlines()[int(place[2]) - 1]
    assert place[3] == "test_anomaly_mode_names_the_forward_line_behind_the_first_bad_gradient"


def test_anomaly_mode_names_a_bad_forward():
    with (
        detect_anomaly(),
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"forward pass of log made NaN or inf .*test_autograd_hooks\.py"),
    ):
        ops.log(leaf([0.0]))


def test_anomaly_mode_is_quiet_where_all_is_well(device):
    with detect_anomaly():
        x = leaf(np.ones((1, 1, 3, 2)))
        mask = np.tril(np.ones((3, 3), bool))
        ops.scaled_dot_product_attention(x, x, x, attn_mask=mask).sum().backward()  # -inf was asked for here
        inf = minilm.tensor([np.inf], device=device)
        assert (inf * 2).item() == np.inf  # not this operation's fault
    with np.errstate(all="ignore"):
        assert ops.log(leaf([0.0])).item() == -np.inf  # outside nothing is looked at


def test_anomaly_mode_sees_bfloat16(device):
    x = minilm.tensor([3e38], dtype="bfloat16", requires_grad=True, device=device)
    with detect_anomaly(), np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="multiply"):
        x * x


def test_anomaly_mode_is_of_one_thread():
    failures = []

    def elsewhere():
        try:
            with np.errstate(all="ignore"):
                ops.log(leaf([0.0]))
        except FloatingPointError as error:
            failures.append(error)

    with detect_anomaly():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert not failures


# Trace.


def _traced():
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((3, 4)))
    with trace() as t:
        loss = ops.exp(x @ w).sum()
        loss.backward()
    return t


def test_trace_lists_forward_and_backward():
    t = _traced()
    assert [row.name for row in t.rows] == ["matmul", "exp", "sum"]
    assert [row.outputs for row in t.rows] == [[(2, 4)], [(2, 4)], [()]]
    assert t.rows[0].inputs == [(2, 3), (3, 4)]
    assert [row.parents for row in t.rows] == [[], [0], [1]]
    assert [row.bytes_kept for row in t.rows] == [(6 + 12) * 8, 8 * 8, 0]
    assert t.bytes_kept == 18 * 8 + 64
    assert all(row.forward_ms > 0 and row.backward_ms > 0 for row in t.rows)
    assert not t._alive  # the graph is not kept alive by its trace


def test_trace_is_drawn():
    t = _traced()
    table = str(t)
    assert len(table.splitlines()) == 1 + 3 + 1
    assert re.search(r"0 +matmul +\(2,4\) +144 B +[\d.]+ ms +[\d.]+ ms", table)
    assert "3 operations, 208 B kept" in table
    dot = t.dot()
    assert dot.startswith("digraph")
    assert dot.endswith("}")
    assert "n0 -> n1;" in dot
    assert "n1 -> n2;" in dot
    assert 'n1["exp<br/>(2,4)"]' in t.mermaid()
    assert "n1 --> n2" in t.mermaid()


def test_trace_without_gradients_nested_and_of_one_thread(device):
    with trace() as outer:
        minilm.tensor([1.0], device=device) + 1
        with trace() as inner:
            minilm.tensor([1.0], device=device) * 2
        thread = threading.Thread(target=lambda: minilm.tensor([1.0], device=device) - 1)
        thread.start()
        thread.join()
    minilm.tensor([1.0], device=device) / 2
    assert [row.name for row in outer.rows] == ["add"]
    assert [row.name for row in inner.rows] == ["multiply"]
    assert outer.rows[0].bytes_kept == 0
    assert outer.rows[0].backward_ms is None


def test_trace_of_a_custom_operation_with_several_outputs():
    @op
    def both(x: Array):
        return x + 1, x * 2

    @both.gradient
    def _(g):
        first, second = g
        return first + 2 * second

    x = leaf([1.0, 2.0])
    with trace() as t:
        a, b = both(x)
        (a * b).sum().backward()
    assert t.rows[0].outputs == [(2,), (2,)]
    assert t.rows[1].parents == [0, 0]
    assert t.rows[0].backward_ms > 0
