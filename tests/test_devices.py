"""The same on a GPU, or its stand-in: losses, gradients, updates and text as on the CPU; weights go both ways."""

from __future__ import annotations

import copy
import json

import fake_cupy
import numpy as np
import pytest
from devices import drawn_ids, small_gpt2

import minilm
from minilm import backend, ops
from minilm.models import GPT2
from minilm.optim import EMA, LAMB, SGD, Adam, AdamW, clip_coefficient, clip_grad_norm, clip_grad_value, grad_norm

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture
def pair():
    """A small GPT-2 on the CPU and its twin on the GPU."""
    model = small_gpt2()
    return model, copy.deepcopy(model).to("cuda")


def _train(model, steps: int, optimizer=None, ema=None) -> list[float]:
    optimizer = optimizer or AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        ids = drawn_ids(step)
        loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(grad_scale=clip_coefficient(grad_norm(model.parameters()), 1.0))
        if ema is not None:
            ema.update()
        losses.append(loss.item())
    return losses


def test_losses_of_training_agree(pair):
    cpu, cuda = pair
    np.testing.assert_allclose(_train(cuda, 20), _train(cpu, 20), rtol=1e-4)


def test_gradients_agree(pair):
    ids = drawn_ids(1, 3, 20)
    for model in pair:
        model(ids[:, :-1], targets=ids[:, 1:]).loss.backward()
    for (name, here), there in zip(pair[0].named_parameters(), pair[1].parameters()):
        assert there.grad.device == "cuda"
        scale = np.abs(here.grad.numpy()).max()
        np.testing.assert_allclose(there.grad.numpy(), here.grad.numpy(), atol=1e-4 * scale, err_msg=name)


def test_dropout_draws_the_same_numbers():
    losses = []
    for device in ("cpu", "cuda"):
        backend.manual_seed(5)
        losses.append(_train(small_gpt2(dropout=0.2).to(device), 3))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


OPTIMIZERS = {
    "AdamW": lambda p: AdamW(p, lr=1e-2, eps=1e-3),  # (some gradients are nothing but rounding)
    "Adam": lambda p: Adam(p, lr=1e-2, eps=1e-3, weight_decay=0.1),
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD, momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "LAMB": lambda p: LAMB(p, lr=1e-2, max_weight_norm=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_agree_and_go_on_on_the_other_device(name, pair):
    optimizers = [OPTIMIZERS[name](list(model.named_parameters())) for model in pair]
    for model, optimizer in zip(pair, optimizers):
        _train(model, 3, optimizer)
    _agree(*pair, rtol=1e-4, atol=1e-5)
    moved = [OPTIMIZERS[name](list(model.named_parameters())) for model in pair]
    for optimizer, other in zip(moved, optimizers[::-1]):  # each goes on from the other one's state
        optimizer.load_state_dict(other.state_dict())
    for model, optimizer in zip(pair, moved):
        _train(model, 2, optimizer)
    _agree(*pair, rtol=1e-3, atol=1e-4)


def _agree(cpu, cuda, **tolerances) -> None:
    for name, there in cuda.state_dict().items():
        assert backend.device_of(there) == "cuda"
        np.testing.assert_allclose(backend.to_numpy(there), cpu.state_dict()[name], err_msg=name, **tolerances)


def test_averages_agree(pair):
    averages = []
    for model in pair:
        ema = EMA(model, 0.9)
        _train(model, 3, ema=ema)
        with ema.swap():
            averages.append({name: backend.to_numpy(array).copy() for name, array in model.state_dict().items()})
    for name in averages[0]:
        np.testing.assert_allclose(averages[1][name], averages[0][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_clipping_of_gradients(pair):
    found = []
    for model in pair:
        ids = drawn_ids(2)
        model(ids, labels=ids).loss.backward()
        norm = clip_grad_norm(model.parameters(), 0.5)
        clip_grad_value(model.parameters(), 1e-3)
        found.append([norm, grad_norm(model.parameters())])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_text_agrees(pair):
    prompt = np.array([[1, 2, 3], [4, 5, 6]])
    mask = np.array([[0, 1, 1], [1, 1, 1]])
    for settings in (
        {},
        {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "seed": 3},
        {"num_beams": 3, "repetition_penalty": 1.2},
        {"attention_mask": mask},
        {"use_cache": False},
    ):
        texts = [model.generate(prompt, 12, **settings) for model in pair]
        np.testing.assert_array_equal(texts[1], texts[0], err_msg=str(settings))


def test_weights_written_on_one_device_load_on_the_other(pair, tmp_path):
    pair[1].save_pretrained(tmp_path)
    loaded = GPT2.from_pretrained(tmp_path)
    _agree(loaded, pair[1], rtol=0)
    cuda = GPT2.from_pretrained(tmp_path).to("cuda")
    cuda.load_state_dict(pair[0].state_dict())
    _agree(pair[0], cuda, rtol=0)
    pair[0].load_state_dict(pair[1].state_dict())
    _agree(pair[0], pair[1], rtol=0)


def test_changes_in_place_take_lists_and_arrays_of_the_device():
    x = minilm.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    x.mul_([2.0, 1.0]).add_([1.0, 0.0])
    x[0] = [0.0, 5.0]
    x[1, 0] = 9
    x[:, 1] = minilm.tensor([6.0, 7.0], device="cuda")
    assert x.tolist() == [[0, 6], [9, 7]]
    assert x.device == "cuda"
    with pytest.raises((ValueError, TypeError)):
        x[0] = np.ones(2)  # of the host


# Indices that name nothing. (CuPy would take the element from the other end.)


@pytest.mark.parametrize("on_gpu", [False, True], ids=["indices on the host", "indices on the GPU"])
def test_indices_that_name_nothing_are_refused(on_gpu):
    x = minilm.tensor(np.ones((3, 4)), device="cuda")
    there = lambda values: backend.to_device(np.array(values), "cuda" if on_gpu else "cpu")
    for call, error, message in (
        (lambda: ops.embedding(there([1, 3]), x), IndexError, "index 3 is outside"),
        (lambda: ops.embedding(there([-1]), x), IndexError, "index -1"),
        (lambda: ops.take(x, there([4]), 1), IndexError, "index 4 is out of bounds for axis 1 with size 4"),
        (lambda: ops.gather(x, there([[0], [-5], [0]])), IndexError, "index -5"),
        (lambda: x[there([0, 3])], IndexError, "index 3"),
        (lambda: x[..., there([4])], IndexError, "index 4 .* axis 1"),
        (lambda: ops.cross_entropy(x, there([0, 4, 1])), ValueError, r"targets\[1\] is 4"),
        (lambda: ops.linear_cross_entropy(x, x, there([0, 3, 1])), ValueError, r"targets\[1\] is 3"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert ops.take(x, there([-1, 0]), 1).shape == (3, 2)
    assert x[there([-3])].shape == (1, 4)


def test_ranges_may_be_trusted():
    table, indices = minilm.tensor(np.arange(3.0), device="cuda"), backend.to_device(np.array([1]), "cuda")
    fake_cupy.transfers.fetched = 0
    with backend.unchecked_ranges():
        picked = table[indices]
        with pytest.raises(IndexError):
            table[np.array([3])]  # what is on the host is looked at all the same
    assert fake_cupy.transfers.fetched == 0
    assert picked.tolist() == [1]


# Nothing is fetched, and so waited for, that was not asked for.


def test_a_training_step_waits_for_its_loss_and_norm_alone(cuda_standin):
    model = small_gpt2().to("cuda")
    optimizer, ids = AdamW(model.parameters(), lr=1e-3), drawn_ids(0)
    fake_cupy.transfers.fetched = fake_cupy.transfers.sent = 0
    loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
    loss.backward()
    optimizer.step()
    assert fake_cupy.transfers.fetched == 0
    assert fake_cupy.transfers.sent == 3  # tokens, positions, targets
    loss.item()
    grad_norm(model.parameters())
    assert fake_cupy.transfers.fetched == 2


def test_decoding_fetches_logits_alone(cuda_standin):
    model = small_gpt2().to("cuda").eval()
    fake_cupy.transfers.fetched = 0
    model.generate(np.array([[1, 2, 3]]), 5)
    assert fake_cupy.transfers.fetched == 5


# A run on one device goes on on the other.


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a text of few words, again and again.\n" * 60)
    return path


def test_a_run_trained_on_one_device_goes_on_on_the_other(tmp_path, corpus, capfd):
    from minilm.cli.main import main

    def train(folder, steps, device, *more):
        settings = ("--output-dir", str(folder), "--train.steps", str(steps), "--device", device)
        assert main(["train", *more, *settings]) == 0, capfd.readouterr().err
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(row["loss"]) for row in rows)
        return [row["loss"] for row in rows]

    new = ("--preset", "tiny", "--data", str(corpus), "--train.ema-decay", "0.9")
    new += ("--optim.warmup-steps", "1", "--train.eval-batches", "1")
    new += ("--train.no-cuda-graph",)  # whose kernels the stand-in does not run
    losses = [train(tmp_path / device, 3, device, *new) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    on_cpu = train(tmp_path / "cuda", 5, "cpu", "--resume", "auto")
    on_cuda = train(tmp_path / "cpu", 5, "cuda", "--resume", "auto")
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-3)
    assert (
        main(["generate", str(tmp_path / "cuda"), "--prompt", "a ", "--max-new-tokens", "3", "--device", "cuda"]) == 0
    )
    assert main(["generate", str(tmp_path / "cuda"), "--prompt", "a ", "--max-new-tokens", "3", "--device", "cpu"]) == 0
