"""Every family of models, and layers of their own, computes on a GPU, or its stand-in, what it does on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from devices import drawn_ids, small_gpt2

import minilm
from minilm import backend, nn
from minilm.models import (
    BartConfig,
    BartForConditionalGeneration,
    Bert,
    BertConfig,
    Llama,
    LlamaConfig,
    RecurrentConfig,
    RecurrentLM,
    T5Config,
    T5ForConditionalGeneration,
)
from minilm.optim import grad_norm

pytestmark = pytest.mark.usefixtures("gpu")


FAMILIES = {
    "Llama": lambda: Llama(
        LlamaConfig(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32
        ),
        backend.Generator(0),
    ),
    "an LSTM": lambda: RecurrentLM(
        RecurrentConfig(vocab_size=61, hidden_size=16, num_layers=2), backend.Generator(0)
    ),
    "GPT-2": small_gpt2,
}  # fmt: skip


READERS = {
    "BART": lambda: BartForConditionalGeneration(
        BartConfig(
            vocab_size=61, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32
        ),
        backend.Generator(0),
    ),
    "T5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=61, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2), backend.Generator(0)
    ),
}  # fmt: skip


PADDED = np.array([[0] * 3 + [1] * 9, [1] * 12])


@pytest.mark.parametrize("mask", [None, PADDED, PADDED[:, ::-1]], ids=["whole", "padded left", "padded right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_language_models_agree(name, mask):
    cpu = FAMILIES[name]().eval()
    cuda = copy.deepcopy(cpu).to("cuda")
    ids = drawn_ids(3, 2, 12)
    labels = ids if mask is None else np.where(mask == 1, ids, -100)
    outs = [model(ids, labels=labels, attention_mask=mask) for model in (cpu, cuda)]
    assert outs[1].logits.device == "cuda"
    np.testing.assert_allclose(outs[1].logits.numpy(), outs[0].logits.numpy(), rtol=1e-3, atol=1e-5)
    for out in outs:
        out.loss.backward()
    norms = [grad_norm(model.parameters()) for model in (cpu, cuda)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    if mask is not PADDED[:, ::-1]:
        texts = [model.generate(ids, 5) for model in (cpu, cuda)]
        np.testing.assert_array_equal(*texts)


@pytest.mark.parametrize("name", READERS)
def test_encoder_decoders_agree(name):
    cpu = READERS[name]().eval()
    cuda = copy.deepcopy(cpu).to("cuda")
    ids, labels, mask = drawn_ids(3, 2, 12), drawn_ids(4, 2, 5), PADDED[:, ::-1].copy()
    outs = [model(ids, attention_mask=mask, labels=labels) for model in (cpu, cuda)]
    np.testing.assert_allclose(outs[1].logits.numpy(), outs[0].logits.numpy(), rtol=1e-3, atol=1e-5)
    for out in outs:
        out.loss.backward()
    assert grad_norm(cuda.parameters()) == pytest.approx(grad_norm(cpu.parameters()), rel=1e-4)
    for settings in ({}, {"num_beams": 2}):
        texts = [model.generate(ids, 5, attention_mask=mask, **settings) for model in (cpu, cuda)]
        np.testing.assert_array_equal(*texts)


def test_bert_agrees_padded_and_packed():
    config = BertConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    cpu = Bert(config, generator=backend.Generator(0)).eval()
    cuda = copy.deepcopy(cpu).to("cuda")
    for settings in ({"attention_mask": PADDED[:, ::-1].copy()}, {}):
        outs = [model(drawn_ids(5, 2, 12), **settings) for model in (cpu, cuda)]
        np.testing.assert_allclose(outs[1].pooler_output.numpy(), outs[0].pooler_output.numpy(), rtol=1e-4, atol=1e-5)
    outs = [model(drawn_ids(5, 1, 12), cu_seqlens=np.array([0, 5, 12])) for model in (cpu, cuda)]
    np.testing.assert_allclose(outs[1].pooler_output.numpy(), outs[0].pooler_output.numpy(), rtol=1e-4, atol=1e-5)


def test_layers_whose_weights_stay_quantised_agree(rng):
    import minilm_kernels as kernels

    x = rng.standard_normal((2, 3, 64)).astype(np.float32)
    for format in ("Q8_0", "Q4_0", "Q4_1"):
        blocks = kernels.quantize(rng.standard_normal((10, 64)).astype(np.float32), format=format)
        on_gpu = backend.to_device(kernels.dequantize(blocks, format=format), "cuda")
        np.testing.assert_array_equal(backend.to_numpy(kernels.quantize(on_gpu, format=format)), blocks)
        cpu, cuda = (nn.QuantizedLinear(blocks, format).to(device) for device in ("cpu", "cuda"))
        table = nn.QuantizedEmbedding(blocks, format).to("cuda")
        with minilm.no_grad():
            y = cuda(minilm.tensor(x, device="cuda"))
            assert y.device == "cuda"
            np.testing.assert_allclose(y.numpy(), cpu(minilm.tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
            rows = nn.QuantizedEmbedding(blocks, format)(np.array([[9, 0]]))
            np.testing.assert_array_equal(table(np.array([[9, 0]])).numpy(), rows.numpy())
            with pytest.raises(IndexError, match="10"):
                table(np.array([10]))


def test_recurrent_layers_with_padding_agree(rng):
    x, mask = rng.standard_normal((2, 5, 3)).astype(np.float32), np.array([[1, 1, 1, 0, 0], [1] * 5])
    for kind in (nn.LSTM, nn.GRU):
        cpu = kind(3, 4, bidirectional=True, generator=backend.Generator(1))
        cuda = copy.deepcopy(cpu).to("cuda")
        outs = [layer(minilm.tensor(x, device=layer.device), mask=mask)[0] for layer in (cpu, cuda)]
        np.testing.assert_allclose(outs[1].numpy(), outs[0].numpy(), rtol=1e-4, atol=1e-6)


def test_multi_head_attention_with_a_memory_and_a_cache(rng):
    cpu = nn.MultiHeadAttention(16, 4, 2, generator=backend.Generator(1))
    cuda = copy.deepcopy(cpu).to("cuda")
    x, memory = (rng.standard_normal((2, n, 16)).astype(np.float32) for n in (3, 5))
    outs = []
    for layer in (cpu, cuda):
        there = [minilm.tensor(array, device=layer.device) for array in (x, memory)]
        outs.append([layer(there[0], there[1], attention_mask=np.array([[1, 1, 1, 0, 1], [1] * 5])).numpy()])
        cache = nn.KeyValueCache(1)
        with minilm.no_grad():
            outs[-1] += [layer(there[0][:, t : t + 1], cache=cache).numpy() for t in range(3)]
    for there, here in zip(outs[1], outs[0]):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)
