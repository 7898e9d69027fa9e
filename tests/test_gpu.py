"""The same model on a GPU: losses, gradients, updates and text as on the CPU, and weights that move between them."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from minilm import backend
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, clip_coefficient, grad_norm

pytestmark = pytest.mark.gpu


@pytest.fixture
def pair():
    """A small GPT-2 on the CPU and its twin on the GPU."""
    config = GPT2Config(
        vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    model = GPT2(config, backend.Generator(0))
    return model, copy.deepcopy(model).to("cuda")


def _train(model, steps: int) -> list[float]:
    optimizer = AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        ids = backend.Generator(step).integers(0, 61, (4, 17))
        loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(grad_scale=clip_coefficient(grad_norm(model.parameters()), 1.0))
        losses.append(loss.item())
    return losses


def test_losses_of_training_agree(pair):
    cpu, cuda = pair
    np.testing.assert_allclose(_train(cuda, 20), _train(cpu, 20), rtol=1e-4)


def test_gradients_agree(pair):
    ids = backend.Generator(1).integers(0, 61, (3, 20))
    for model in pair:
        model(ids[:, :-1], targets=ids[:, 1:]).loss.backward()
    for (name, here), there in zip(pair[0].named_parameters(), pair[1].parameters()):
        assert there.grad.device == "cuda"
        scale = np.abs(here.grad.numpy()).max()
        np.testing.assert_allclose(there.grad.numpy(), here.grad.numpy(), atol=1e-4 * scale, err_msg=name)


def test_greedy_text_agrees(pair):
    prompt = np.array([[1, 2, 3], [4, 5, 6]])
    assert (pair[0].generate(prompt, 20) == pair[1].generate(prompt, 20)).all()


def test_weights_written_on_one_device_load_on_the_other(pair, tmp_path):
    pair[1].save_pretrained(tmp_path)
    loaded = GPT2.from_pretrained(tmp_path)
    for name, array in loaded.state_dict().items():
        np.testing.assert_array_equal(array, pair[0].state_dict()[name], err_msg=name)
