"""Computing parts of a forward pass again: the same bits, with less kept."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm import backend, nn, ops
from minilm.autograd import autocast, kept_bytes, recompute
from minilm.models import GPT2, GPT2Config, Llama, LlamaConfig

GPT = GPT2Config(
    vocab_size=61, n_positions=32, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0.2, embd_pdrop=0.1, attn_pdrop=0.3
)
LLAMA = LlamaConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, attention_dropout=0.3,
)  # fmt: skip
MODELS = [pytest.param(GPT2, GPT, id="gpt2"), pytest.param(Llama, LLAMA, id="llama")]


def _step(model_class, config, what, precision=None, steps=2):
    """Losses, gradients and kept bytes of two batches, and the number that dropout's stream gives next."""
    model = model_class(config, backend.Generator(0))
    nn.set_recompute(model, what)
    backend.manual_seed(7)
    losses, kept = [], 0
    for number in range(steps):
        ids = backend.Generator(number).integers(0, 61, (4, 25))
        with autocast(precision):
            loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
        kept = kept_bytes(loss)
        loss.backward()
        losses.append(loss.item())
    return losses, [p.grad.numpy() for p in model.parameters()], kept, backend.default_generator.seed64()


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize(("model_class", "config"), MODELS)
def test_losses_and_gradients_are_the_same_bits_and_less_is_kept(model_class, config, precision):
    losses, gradients, kept, following = _step(model_class, config, "none", precision)
    smaller = kept
    for what in ("attention", "block"):
        again = _step(model_class, config, what, precision)
        assert again[0] == losses
        for mine, theirs in zip(again[1], gradients):
            np.testing.assert_array_equal(mine, theirs)
        assert again[3] == following
        assert again[2] < 0.9 * smaller
        smaller = again[2]
    assert smaller < 0.5 * kept


def test_only_inputs_are_kept():
    x = minilm.tensor(np.ones((100, 10), np.float32), requires_grad=True)
    h = x * 2
    plain = kept_bytes(((h.exp() * h.sin()).exp() * 3).sum())
    assert plain >= 3 * h.data.nbytes
    assert kept_bytes(recompute(lambda h: ((h.exp() * h.sin()).exp() * 3).sum(), h)) == h.data.nbytes


def test_several_inputs_and_outputs_of_which_some_are_used():
    a, b = (minilm.tensor(np.arange(1, 4, dtype=np.float32), requires_grad=True) for _ in range(2))
    total, product = recompute(lambda a, b: (a + b, a * b), a, b)
    product.sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), b.numpy())
    assert total.requires_grad
    grad_a, grad_w = minilm.grad(recompute(lambda a: a * b, a, parameters=[b]).sum(), [a, b])
    np.testing.assert_array_equal(grad_a.numpy(), b.numpy())
    np.testing.assert_array_equal(grad_w.numpy(), a.numpy())


def test_own_streams_are_not_drawn_from_twice():
    stream = backend.Generator(3)
    x = minilm.tensor(np.ones(1000, np.float32), requires_grad=True)
    y = recompute(lambda x: ops.dropout(x, 0.5, generator=stream) + minilm.tensor(stream.normal((1000,))), x)
    state = stream.state()
    y.sum().backward()
    assert stream.state() == state
    twin = backend.Generator(3)
    kept = ops.dropout(np.ones(1000, np.float32), 0.5, generator=twin)
    np.testing.assert_array_equal(x.grad.numpy(), kept)


def test_nested():
    x = minilm.tensor(np.linspace(0, 1, 50, dtype=np.float32), requires_grad=True)

    def inner(x):
        return ops.dropout(x.exp(), 0.5)

    def outer(wrap):
        backend.manual_seed(1)
        y = (lambda x: recompute(inner, x)) if wrap else inner
        return lambda x: ops.dropout(y(x * x), 0.25) * y(x)

    plain = outer(False)(x).sum()
    (expected,) = minilm.grad(plain, x)
    function = outer(True)
    (found,) = minilm.grad(recompute(function, x).sum(), x)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_without_gradients_it_is_a_plain_call():
    x = minilm.tensor([1.0, 2.0], requires_grad=True)
    with minilm.no_grad():
        assert not recompute(lambda x: x * 2, x).requires_grad
    assert not recompute(lambda x: x * 2, minilm.tensor([1.0])).requires_grad

    def half_recorded(x):
        with minilm.no_grad():
            factor = x.exp()
        return x * factor

    recompute(half_recorded, x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.numpy()), rtol=1e-6)


def test_what_it_refuses():
    x, w = (minilm.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match=r"tensor of shape \(2,\) that requires a gradient and was not given"):
        recompute(lambda x: x * w, x).sum().backward()
    with pytest.raises(RuntimeError, match="has no second derivative"):
        minilm.grad(recompute(lambda x: x * x, x).sum(), x, create_graph=True)
    with pytest.raises(TypeError, match="input 0 of recompute is a ndarray"):
        recompute(lambda x: x, np.ones(2))
    with pytest.raises(TypeError, match="returned list"):
        recompute(lambda x: [x], x)
    with pytest.raises(ValueError, match="one of none, attention, block"):
        nn.set_recompute(GPT2(GPT), "all")
    with pytest.raises(ValueError, match="Linear has no layers that can be recomputed"):
        nn.set_recompute(nn.Linear(2, 2), "block")
    numbers = iter([1, 2])
    stream = backend.Generator(0)
    y = recompute(lambda x: x * sum(stream.seed64() % 2 for _ in range(next(numbers))), x)
    with pytest.raises(RuntimeError, match="drew more random numbers than the 1 of the first time"):
        y.sum().backward()


def test_a_parameter_changed_in_between_is_found():
    x, w = (minilm.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    y = recompute(lambda x: x * w, x, parameters=[w]).sum()
    with minilm.no_grad():
        w.add_(1.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_results_asked_for_are_given_whole():
    model = GPT2(GPT, backend.Generator(0))
    nn.set_recompute(model, "block")
    ids = np.array([[1, 2, 3]])
    found = model(ids, output_attentions=True, output_hidden_states=True)
    assert len(found.attentions) == GPT.n_layer
    assert len(found.hidden_states) == GPT.n_layer + 1
    model.eval()
    with minilm.no_grad():
        assert model.generate(ids, 3).shape == (1, 6)
