"""A Llama's layers in one kernel call: what the layers compute, and only where nobody looks into them."""

from __future__ import annotations

import minilm_kernels as kernels
import numpy as np
import pytest

import minilm
from minilm import nn
from minilm.backend import Generator
from minilm.models import Llama, LlamaConfig, Mistral, MistralConfig, Qwen2, Qwen2Config, llama_step
from minilm.models.llama import MLP


def _step_model(case: str, hidden_size: int = 64, intermediate_size: int = 96):
    shape = {"hidden_size": hidden_size, "intermediate_size": intermediate_size}
    shape |= {"num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"vocab_size": 50, "num_key_value_heads": 2, "max_position_embeddings": 64}
    if case == "mistral":
        return Mistral(MistralConfig(**shape, sliding_window=5), Generator(1)).eval()
    if case == "qwen2":
        model = Qwen2(
            Qwen2Config(**shape, use_sliding_window=True, sliding_window=6, max_window_layers=2), Generator(1)
        )
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if name.endswith("bias"):
                parameter.data[...] = Generator(number).normal(parameter.shape)
        return model.eval()
    return Llama(LlamaConfig(**shape, attention_bias=case == "biases", mlp_bias=case == "biases"), Generator(1)).eval()


def _quantised(model):
    for layer in model.model.layers:
        for part, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
            for name in names:
                linear = getattr(part, f"{name}_proj")
                blocks = kernels.quantize(linear.weight.numpy(), format="Q4_1" if name in "qko" else "Q8_0")
                setattr(
                    part, f"{name}_proj", nn.QuantizedLinear(blocks, "Q4_1" if name in "qko" else "Q8_0", linear.bias)
                )
    return model


def _decoded(model, ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Logits of a row read token by token, and how many tokens went through all layers in one call."""
    calls, plain, found, cache = [], llama_step.kernels.decoder_step, [], model.new_cache()
    llama_step.kernels.decoder_step = lambda *args, **settings: calls.append(1) or plain(*args, **settings)
    try:
        with minilm.no_grad():
            for i in range(ids.shape[1]):
                found.append(model(ids[:, i : i + 1], cache=cache).logits.numpy()[:, 0])
    finally:
        llama_step.kernels.decoder_step = plain
    return np.stack(found, axis=1), len(calls)


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("case", ["llama", "biases", "mistral", "qwen2"])
def test_a_step_in_one_call_is_what_the_layers_compute(case, quantised):
    model, ids = _step_model(case), Generator(0).integers(0, 50, (1, 20))
    if quantised:
        model = _quantised(model)
    with minilm.no_grad():
        whole = model(ids).logits.numpy()
    logits, calls = _decoded(model, ids)
    np.testing.assert_allclose(logits, whole, atol=2e-5 * np.abs(whole).max())
    assert calls == 19  # all but the first, which finds an empty cache


def _watch(model):
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: out)


def _exchange(model):
    model.model.layers[1].mlp.down_proj = _Doubled(96, 64, False)


class _Doubled(nn.Linear):
    def forward(self, x, activation=None):
        return 2 * super().forward(x, activation)


def _exchange_mlp(model):
    old = model.model.layers[1].mlp
    new = _Halved(model.config, None)
    new.load_state_dict(old.state_dict())
    model.model.layers[1].mlp = new


class _Halved(MLP):
    def forward(self, x):
        return super().forward(x) / 2


def _other_eps(model):
    model.model.layers[1].post_attention_layernorm.eps = 0.5


def _own_forward(model):
    layer = model.model.layers[2]
    layer.forward = lambda x, *rest: type(layer).forward(layer, x, *rest) * 2


@pytest.mark.parametrize(
    "change", [_watch, _exchange, _exchange_mlp, _other_eps, _own_forward, lambda model: model.to("float64")]
)
def test_layers_that_are_watched_or_not_their_own_are_called(change):
    model, ids = _step_model("llama"), Generator(0).integers(0, 50, (1, 8))
    change(model)
    with minilm.no_grad():
        whole = model(ids).logits.numpy()
    logits, calls = _decoded(model, ids)
    np.testing.assert_allclose(logits, whole, atol=2e-5 * np.abs(whole).max())
    assert calls == 0


@pytest.mark.parametrize(("widths", "taken"), [((40, 72), 7), ((40, 76), 0), ((24, 64), 7)])
def test_layers_that_no_kernel_takes_are_called(widths, taken):
    model, ids = _step_model("llama", *widths), Generator(0).integers(0, 50, (1, 8))
    with minilm.no_grad():
        whole = model(ids).logits.numpy()
    logits, calls = _decoded(model, ids)
    np.testing.assert_allclose(logits, whole, atol=2e-5 * np.abs(whole).max())
    assert calls == taken


def test_weights_given_anew_are_used_in_the_next_step():
    model, ids = _step_model("llama"), Generator(0).integers(0, 50, (1, 8))
    _decoded(model, ids)
    other = _step_model("llama")
    for parameter in other.parameters():
        parameter.data[...] *= np.float32(1.5)
    model.load_state_dict(other.state_dict())
    model.model.layers[0].mlp.down_proj = other.model.layers[0].mlp.down_proj
    np.testing.assert_array_equal(_decoded(model, ids)[0], _decoded(other, ids)[0])


def test_states_and_attentions_of_a_step_are_there():
    model, ids, cache = _step_model("llama"), Generator(0).integers(0, 50, (1, 4)), None
    with minilm.no_grad():
        cache = model.new_cache()
        model(ids[:, :3], cache=cache)
        out = model(ids[:, 3:], cache=cache, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 4
    assert out.attentions[0].shape == (1, 4, 1, 4)
