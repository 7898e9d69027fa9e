"""Decoding: the tokens and the filters of transformers, with and without the cache."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm import backend
from minilm.generation import SamplingOptions, generate
from minilm.generation.nucleus import top_p_filter
from minilm.generation.processors import (
    log_probabilities,
    min_p_filter,
    penalize_repetition,
    top_k_filter,
)
from minilm.generation.sampling import sample
from minilm.models import GPT2, GPT2Config
from minilm.tokenization import Tokenizer

TINY = {"vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3}


def tiny(seed=0, **changes) -> GPT2:
    """A small model with weights large enough that its likeliest tokens vary."""
    model = GPT2(GPT2Config(**{**TINY, **changes}))
    stream = backend.Generator(seed)
    for name, parameter in model.named_parameters():
        if "ln_" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    return model


TOKENIZER = Tokenizer.byte()


def prompts(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TINY["vocab_size"], shape)


# Against transformers.


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("padded", [False, True])
def test_greedy_tokens_are_those_of_transformers(padded, penalty, transformers, torch, tmp_path):
    model, ids = tiny(), prompts(4, 6)
    model.save_pretrained(tmp_path)
    peer = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    mask = np.ones_like(ids)
    if padded:
        mask[1, :2], mask[2, :5] = 0, 0
    plain = generate(model, ids, 20, attention_mask=mask, repetition_penalty=penalty)
    ends = [int(plain[0, 10]), int(plain[2, 15])]  # so that rows end at different times
    for eos in ([], ends):
        ours = generate(
            model, ids, 20, attention_mask=mask, repetition_penalty=penalty, eos_token_id=eos, pad_token_id=60
        )
        theirs = peer.generate(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=eos or None,
            pad_token_id=60,
        )
        np.testing.assert_array_equal(ours, theirs.numpy())
    assert len(np.unique(plain[:, 6:])) > 5  # not one token again and again


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.6},
        {"top_k": 5},
        {"top_k": 1000},
        {"top_p": 0.7},
        {"top_p": 0.01},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.8, "temperature": 2.0},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_filters_and_their_order_are_those_of_transformers(settings, transformers, torch):
    """The processors as transformers' own generate builds them, on the same logits."""
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((40, 61)) * 3).astype(np.float32)
    ids = rng.integers(0, 61, (40, 12))
    config = transformers.GenerationConfig(do_sample=True, top_k=0)
    config.update(**settings)
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY))
    peer._prepare_special_tokens(config)
    chain = peer._get_logits_processor(config, input_ids_seq_length=12, prefix_allowed_tokens_fn=None)
    assert len(chain) == len(settings)
    expected = torch.softmax(chain(torch.from_numpy(ids), torch.from_numpy(logits)), dim=-1).numpy()
    options = SamplingOptions(do_sample=True, **settings)
    found = np.exp(log_probabilities(options.scores(logits.astype(np.float64), list(ids))))
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


# The parts.


def test_top_k_keeps_ties_and_all_where_k_is_large():
    logits = np.array([[3.0, 1.0, 2.0, 2.0, 0.0]])
    np.testing.assert_array_equal(np.isfinite(top_k_filter([], logits, 2)), [[True, False, True, True, False]])
    np.testing.assert_array_equal(top_k_filter([], logits, 9), logits)


def test_top_p_keeps_the_fewest_tokens_that_reach_p():
    logits = np.log(np.array([[0.2, 0.5, 0.25, 0.05]]))
    for p, kept in ((0.4, [1]), (0.6, [1, 2]), (0.74, [1, 2]), (0.8, [0, 1, 2]), (0.96, [0, 1, 2, 3]), (1e-9, [1])):
        assert np.flatnonzero(np.isfinite(top_p_filter([], logits, p))).tolist() == kept, p


def test_min_p_is_relative_to_the_likeliest():
    logits = np.log(np.array([[0.6, 0.2, 0.13, 0.07]]))
    assert np.flatnonzero(np.isfinite(min_p_filter([], logits, 0.3))).tolist() == [0, 1]


def test_the_penalty_makes_seen_tokens_less_likely_and_leaves_its_input():
    logits = np.array([[2.0, -2.0, 1.0, 0.0]])
    out = penalize_repetition([np.array([0, 1, 1, 3])], logits, 2.0)
    np.testing.assert_array_equal(out, [[1.0, -4.0, 1.0, 0.0]])
    assert logits[0, 0] == 2.0


def test_sample_follows_the_probabilities_and_never_takes_what_was_filtered_out():
    p = np.array([0.5, 0.0, 0.3, 0.2, 0.0])
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    n = 20_000
    uniforms = np.random.default_rng(0).random(n)
    counts = np.bincount(sample(np.broadcast_to(logits, (n, 5)), uniforms), minlength=5)
    assert counts[1] == counts[4] == 0
    assert (np.abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p))).all()
    extremes = np.array([0.0, np.nextafter(1.0, 0.0)])
    np.testing.assert_array_equal(sample(np.stack([logits, logits]), extremes), [0, 3])


def test_sampling_from_the_model_follows_its_probabilities():
    model, ids = tiny(), prompts(1, 5)
    n = 4000
    options = {"do_sample": True, "temperature": 1.3, "top_k": 6}
    drawn = generate(model, np.repeat(ids, n, axis=0), 1, seed=0, **options)[:, -1]
    scores = SamplingOptions(**options).scores(model.eval()(ids).logits.data[:, -1].astype(np.float64), list(ids))
    p = np.exp(log_probabilities(scores))[0]
    counts = np.bincount(drawn, minlength=61)
    assert (np.abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9).all()


# With and without the cache.


@pytest.mark.parametrize("n_prompt", [1, 7, 32, 33, 50, 90])
@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_p": 0.95, "seed": 3}], ids=["greedy", "sampled"])
def test_tokens_with_the_cache_are_those_without(n_prompt, settings):
    model, ids = tiny(), prompts(2, n_prompt)  # (the model's 32 positions are passed several times)
    cached = generate(model, ids, 60, **settings)
    assert cached.shape == (2, n_prompt + 60)
    np.testing.assert_array_equal(cached, generate(model, ids, 60, use_cache=False, **settings))
    np.testing.assert_array_equal(cached[:, :n_prompt], ids)


def test_past_the_window_half_of_it_is_dropped_at_a_time():
    model, ids = tiny(), prompts(1, 30)
    out = generate(model, ids, 40)
    start = 0
    for n in range(30, 70):
        if n - start > 32:
            start += 16
        with minilm.no_grad():
            assert out[0, n] == model.eval()(out[:, start:n]).logits.data[0, -1].argmax()


def test_left_padding_past_the_window_with_and_without_the_cache():
    model, ids = tiny(), prompts(2, 20)
    mask = np.ones_like(ids)
    mask[1, :15] = 0
    options = {"attention_mask": mask, "repetition_penalty": 1.2}
    np.testing.assert_array_equal(
        generate(model, ids, 40, **options), generate(model, ids, 40, use_cache=False, **options)
    )


def test_a_row_gets_the_tokens_it_gets_alone():
    model, ids = tiny(), prompts(3, 8)
    mask = np.ones_like(ids)
    mask[0, :5], mask[1, :2] = 0, 0
    together = generate(model, ids, 15, attention_mask=mask)
    for row, real, out in zip(ids, mask, together):
        np.testing.assert_array_equal(generate(model, row[real == 1][None], 15)[0, -15:], out[-15:])


def test_the_penalty_does_not_count_what_stands_for_padding():
    model, ids = tiny(), prompts(1, 4)
    options = {"repetition_penalty": 10.0}
    alone = generate(model, ids, 8, **options)
    padded = np.concatenate([alone[:, 4:8], ids], axis=1)  # padded with what is about to be said
    mask = np.array([[0] * 4 + [1] * 4])
    np.testing.assert_array_equal(generate(model, padded, 8, attention_mask=mask, **options)[:, 4:], alone)


# Randomness.


def test_a_seed_gives_the_same_tokens_and_none_goes_on():
    model, ids = tiny(), prompts(2, 4)
    first, second, other = (generate(model, ids, 20, do_sample=True, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    minilm.manual_seed(5)
    np.testing.assert_array_equal(generate(model, ids, 20, do_sample=True), first)
    assert not np.array_equal(generate(model, ids, 20, do_sample=True), first)
    minilm.manual_seed(1)
    before = backend.default_generator.state()
    generate(model, ids, 5, do_sample=True, seed=2)
    generate(model, ids, 5)
    assert backend.default_generator.state() == before  # neither a seed nor greedy decoding uses the default stream


# The streamer, and the model.


def test_the_streamer_gets_each_steps_tokens():
    model, ids, seen = tiny(), prompts(2, 4), []
    out = generate(model, ids, 7, streamer=seen.append)
    np.testing.assert_array_equal(np.stack(seen, axis=1), out[:, 4:])


def test_no_new_tokens_are_the_prompt():
    model, ids = tiny(), prompts(2, 4)
    np.testing.assert_array_equal(model.generate(ids, 0), ids)
    assert model.generate(ids.astype(np.int32).tolist(), max_new_tokens=1).dtype == np.int64


def test_generate_leaves_modes_and_gradients_as_they_were():
    model, ids = tiny(), prompts(1, 4)
    model.transformer.drop.eval()
    model(ids, targets=ids).loss.backward()
    before = {name: p.grad.data.copy() for name, p in model.named_parameters()}
    first = model.generate(ids, 6)
    assert model.training
    assert model.transformer.h[0].training
    assert not model.transformer.drop.training
    np.testing.assert_array_equal(model.eval().generate(ids, 6), first)  # dropout was off before, too
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.grad.data, before[name])


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        (prompts(4), {}, ValueError, r"\(B, T\).*ids\[None\]"),
        (np.zeros((1, 0), int), {}, ValueError, "prompt is empty"),
        (np.zeros((1, 2)), {}, ValueError, "must be integers; got float64"),
        (prompts(1, 2), {"max_new_tokens": -1}, ValueError, "max_new_tokens"),
        (prompts(1, 2), {"max_new_tokens": None}, ValueError, "max_new_tokens is an integer; got None"),
        (prompts(1, 2), {"num_beams": 2.0}, ValueError, "num_beams is an integer; got 2.0"),
        (prompts(1, 2), {"do_sample": True, "top_k": 2.5}, ValueError, "top_k is an integer or None; got 2.5"),
        (prompts(1, 2), {"num_beams": 2, "length_penalty": "1"}, ValueError, "length_penalty is a number; got '1'"),
        (prompts(1, 2), {"forced_eos_token_id": -1}, ValueError, "forced_eos_token_id has the token -1"),
        (prompts(1, 2), {"bad_words_ids": [[3, 10_000]]}, ValueError, "bad_words_ids has the token 10000"),
        (prompts(1, 2), {"temperature": 0.0}, ValueError, "temperature must be above 0 .*do_sample=False"),
        (prompts(1, 2), {"top_k": 0}, ValueError, "top_k must be at least 1"),
        (prompts(1, 2), {"top_p": 0.0}, ValueError, r"top_p must lie in \(0, 1\]"),
        (prompts(1, 2), {"min_p": 1.1}, ValueError, "min_p"),
        (prompts(1, 2), {"repetition_penalty": 0}, ValueError, "repetition_penalty"),
        (prompts(1, 2), {"stop_strings": "x"}, ValueError, "pass the tokenizer"),
        (prompts(1, 2), {"stop_strings": ["x", ""], "tokenizer": TOKENIZER}, ValueError, "empty"),
        (prompts(1, 2), {"attention_mask": np.ones((1, 3))}, ValueError, r"shape, \(1, 2\); got \(1, 3\)"),
        (prompts(1, 2), {"attention_mask": np.array([[1, 0]])}, ValueError, "pad prompts on the left"),
        ("ROMEO", {}, ValueError, "came as text"),
        (prompts(1, 2), {"beams": 4}, TypeError, "no option 'beams'; did you mean 'num_beams'"),
        (prompts(1, 2), {"max_new_tokens": {"top_k": 5}}, TypeError, r"max_new_tokens is a dict; .*\*\*options"),
        (prompts(1, 2), {"xyzzy": 4}, TypeError, "no option 'xyzzy'; there are: .*top_p"),
    ],
)
def test_bad_arguments_say_what_is_wrong(ids, options, error, message):
    with pytest.raises(error, match=message):
        tiny().generate(ids, **{"max_new_tokens": 2, **options})


def test_an_end_that_is_no_token_bans_none():
    model, ids = tiny(), prompts(2, 4)
    wanted = generate(model, ids, 5, eos_token_id=[])
    for none in (-1, 10_000):
        np.testing.assert_array_equal(generate(model, ids, 5, eos_token_id=none, min_new_tokens=5), wanted)
    last = model.config.vocab_size - 1
    model.transformer.wte.weight.data[last] = 9 * model.transformer.wte.weight.data[wanted[0, 4]]
    assert last in generate(model, ids, 5, eos_token_id=-1, min_new_tokens=5)


def test_a_model_gone_to_nan_is_reported():
    model = tiny()
    model.transformer.ln_f.bias.data[0] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        model.generate(prompts(1, 3), 2)
    assert model.training
