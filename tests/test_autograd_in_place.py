"""Arrays changed in place after a call kept them: found, named, or allowed where no gradient needs them."""

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import no_grad, ops


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


@pytest.mark.parametrize(("dtype", "value"), [("int64", 0.5), ("bool", 2), ("int32", np.float32(0.5))])
@pytest.mark.parametrize("name", ["add_", "mul_"])
def test_numbers_are_not_cut_off_to_fit_in(name, dtype, value):
    x = minilm.tensor([1, 0], dtype=dtype)
    with pytest.raises(TypeError, match=rf"{name} makes \w+ of this tensor of {dtype}, .* convert this with \.to\('"):
        getattr(x, name)(value)
    assert x.tolist() == [1, 0]
    assert minilm.tensor([1.0], dtype="bfloat16").add_(np.ones(1)).dtype == "bfloat16"
    assert minilm.tensor([1], dtype="uint8").mul_(minilm.tensor([3])).tolist() == [3]
