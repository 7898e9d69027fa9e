"""A recorded step of decoding: the tokens of the plain one, on the CPU and on CuPy's stand-in; when it is not taken."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from devices import record_each_time

from minilm import Tensor, backend, no_grad
from minilm.generation import captured, generate
from minilm.generation.captured import CapturedDecoding
from minilm.generation.decoder import Decoder
from minilm.nn import StaticCache
from minilm.nn.static_step import StaticStep

STATIC = {"cache_implementation": "static", "eos_token_id": []}
KINDS = ("gpt2", "llama", "mistral")


def prompts(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, 61, (rows, length))


@pytest.fixture
def launched(monkeypatch):
    """All that `CapturedDecoding` was asked for, and whether it did it; on the CPU too."""
    calls, call = [], CapturedDecoding.__call__

    def noted(self, *args):
        logits = call(self, *args)
        calls.append((self, logits is not None))
        return logits

    monkeypatch.setattr(Decoder, "captured_on", ("cpu", "cuda"))
    monkeypatch.setattr(CapturedDecoding, "__call__", noted)
    return calls


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "seed": 3}, {"prefill_chunk_size": 4}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_plain_step(kind, settings, tiny_model, launched):
    model, ids = tiny_model(kind), prompts(3, 9)
    expected = generate(model, ids, 20, eos_token_id=[], **settings)
    assert not launched
    np.testing.assert_array_equal(generate(model, ids, 20, **STATIC, **settings), expected)
    assert [done for _, done in launched] == [True] * 19
    assert launched[0][0].refused is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_on_cupys_stand_in(kind, dtype, tiny_model, launched, cuda_standin, monkeypatch):
    record_each_time(monkeypatch)
    model, ids = tiny_model(kind).to(dtype), prompts(2, 7)
    expected = generate(model, ids, 12, eos_token_id=[])
    found = generate(model.to("cuda"), ids, 12, **STATIC)
    assert dtype == "bfloat16" or np.array_equal(found, expected)
    assert [done for _, done in launched] == [True] * 11
    assert launched[0][0].refused is None
    assert launched[0][0].is_recorded


def test_nothing_is_fetched_or_sent_within_a_step(tiny_model, cuda_standin):
    from fake_cupy import transfers

    for kind in KINDS:
        model = tiny_model(kind).to("cuda")
        with no_grad():
            cache = model.new_cache(16, "static", 2)
            model(prompts(2, 7), cache=cache)
            numbers = cuda_standin.asarray(np.array([[3, 4], [7, 7]]))
            before = transfers.fetched, transfers.sent
            captured._step(model, cache, numbers)
            assert (transfers.fetched, transfers.sent) == before, kind


def test_rows_of_different_lengths(tiny_model):
    for kind in KINDS:
        model, ids = tiny_model(kind), prompts(2, 9)
        with no_grad():
            cache = model.new_cache(16, "static", 2)
            model(ids, cache=cache)
            cache.truncate([9, 4])
            last = np.array([[5], [6]])
            mine = captured._step(model, cache, np.stack([last[:, 0], cache.lengths]))
            expected = model(last, cache=cache, logits_to_keep=1).logits.data
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5, err_msg=kind)


def test_past_the_window_and_with_guesses(tiny_model, launched):
    model, ids = tiny_model("gpt2", n_positions=16), prompts(1, 11)
    expected = generate(model, ids, 25, eos_token_id=[])
    np.testing.assert_array_equal(generate(model, ids, 25, **STATIC), expected)
    assert {done for _, done in launched} == {True}
    assert len(launched) == 24 - 3  # the window was moved three times, and read anew
    guessing = {**STATIC, "assistant_model": tiny_model("gpt2", seed=2, n_positions=40)}
    model = tiny_model("gpt2")
    np.testing.assert_array_equal(generate(model, ids, 25, **guessing), generate(model, ids, 25, eos_token_id=[]))


def test_what_it_refuses_is_told_and_decoded_as_ever(tiny_model, launched, caplog):
    model, ids, mask = tiny_model("gpt2"), prompts(2, 6), np.ones((2, 6), np.int64)
    hooked = tiny_model("gpt2")
    hooked.transformer.h[0].register_forward_hook(lambda module, args, out: None)
    padded = mask.copy()
    padded[0, :2] = 0
    states = {"return_dict_in_generate": True, "output_hidden_states": True}
    for which, options, reason in (
        (model, {"num_beams": 2}, "beams move the rows"),
        (model, states, "hidden states or attention weights"),
        (model, {"attention_mask": padded}, "a padded prompt's mask"),
        (hooked, {}, "forward hooks"),
    ):
        launched.clear()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            mine = generate(which, ids, 8, **STATIC, **options)
        expected = generate(model, ids, 8, eos_token_id=[], **options)
        mine, expected = (getattr(found, "sequences", found) for found in (mine, expected))
        np.testing.assert_array_equal(mine, expected)
        assert launched
        assert not any(done for _, done in launched)
        assert reason in launched[0][0].refused
        assert [reason in record.message for record in caplog.records] == [True]
    launched.clear()
    np.testing.assert_array_equal(
        generate(model, ids, 8, attention_mask=mask, **STATIC), generate(model, ids, 8, eos_token_id=[])
    )
    assert all(done for _, done in launched)


def test_a_graph_belongs_to_its_buffers(tiny_model, monkeypatch):
    model, ids = tiny_model("gpt2"), prompts(2, 5)
    taken = CapturedDecoding(model)
    with no_grad():
        cache = model.new_cache(8, "static", 2)
        assert taken(cache, ids[:, :1], 61, None) is None  # nothing is there yet
        model(ids, cache=cache)
        assert taken(cache, np.array([[61], [0]]), 61, None) is None  # the plain call tells of it
        assert taken(cache, ids[:, :1], 61, None).shape == (2, 1, 61)
        first = taken._graph
        taken(cache, ids[:, :1], 61, None)
        assert taken._graph is first
        cache.select(np.array([1, 0]))
        taken(cache, ids[:, :1], 61, None)
        assert taken._graph is not first
        assert len(cache) == 8
        assert taken(cache, ids[:, :1], 61, None) is None  # no room is left
        assert taken.refused is None
        cache.truncate(5)
        monkeypatch.setattr(taken._graph, "refused", "CaptureError: so")
        assert taken(cache, ids[:, :1], 61, None) is not None
        assert taken.refused == "CaptureError: so"
        assert taken(cache, ids[:, :1], 61, None) is None


def test_a_step_takes_one_token_a_row():
    cache, x = StaticCache(n_layer=1, rows=1, capacity=4), Tensor(np.ones((1, 1, 2, 3), np.float32))
    cache.append(0, x, x)
    with pytest.raises(ValueError, match="one token a row; got 2"):
        StaticStep(cache, np.array([2])).attend(0, x, x, {})


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_on_a_gpu(kind, dtype, tiny_model, launched):
    model, ids = tiny_model(kind).to("cuda").to(dtype), prompts(3, 9)
    recorded = generate(model, ids, 20, **STATIC)
    assert launched[0][0].refused is None
    assert launched[0][0].is_recorded
    with no_grad():  # each token is the likeliest, or nearly so, where all is computed at once
        logits = backend.to_numpy(model(recorded).logits.data).astype(np.float32)[:, 8:-1]
    chosen = np.take_along_axis(logits, recorded[:, 9:, None], axis=2)[..., 0]
    assert (logits.max(axis=2) - chosen).max() < (1e-3 if dtype == "float32" else 0.3)
