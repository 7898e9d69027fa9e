"""no_grad and enable_grad: nested, as decorators, and in threads."""

import threading

import pytest
from leaves import leaf

from minilm import no_grad
from minilm.autograd import detect_anomaly, enable_grad, is_grad_enabled


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


@pytest.mark.parametrize("switch", [no_grad, enable_grad, detect_anomaly])
def test_without_parentheses_it_says_how_it_is_written(switch):
    name = switch.__name__
    for wrong in (lambda x: x, True):
        with pytest.raises(TypeError, match=rf"{name} takes no arguments: `with {name}\(\):`, or @{name}\(\) above"):
            switch(wrong)
