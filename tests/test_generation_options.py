"""The options of decoding: what they do to scores and tokens, as in transformers, and what only ours promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.generation import GenerationConfig, generate
from minilm.generation.processors import log_probabilities

VOCAB = 61


def prompts(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCAB, shape)


def theirs(peer, torch, ids, mask=None, **options):
    """What transformers generates; eos_token_id [] is none, as for us."""
    if options.get("eos_token_id", 0) == []:
        options["eos_token_id"] = None
        peer.generation_config.eos_token_id = None
    mask = np.ones_like(ids) if mask is None else mask
    options = {"do_sample": False, "pad_token_id": 1, **options}
    return peer.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **options)


# What is done to the scores.

CHOICES = {
    "temperature": st.sampled_from([0.3, 0.7, 2.1]),
    "top_k": st.sampled_from([1, 3, 17, 100]),
    "top_p": st.floats(0.011, 0.987),
    "min_p": st.floats(0.007, 0.613),
    "typical_p": st.floats(0.011, 0.987),
    "repetition_penalty": st.sampled_from([0.7, 1.4]),
    "no_repeat_ngram_size": st.sampled_from([1, 2, 3]),
    "min_new_tokens": st.sampled_from([1, 4]),
    "min_length": st.sampled_from([5, 12, 13]),
    "bad_words_ids": st.sampled_from([[[3]], [[4, 5], [6], [7, 8, 9]]]),
}


@given(
    chosen=st.dictionaries(st.sampled_from(sorted(CHOICES)), st.none(), max_size=6),
    data=st.data(),
    kind=st.sampled_from(["plain", "ties", "banned"]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_scores_and_their_order_are_those_of_transformers(chosen, data, kind, seed, transformers, torch, tiny_model):
    """All processors as transformers' own generate builds them, on the same logits, ties and -inf among them."""
    options = {name: data.draw(CHOICES[name], label=name) for name in chosen}
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((6, VOCAB)) * 3
    if kind == "ties":
        logits = np.round(logits)
    if kind == "banned":
        logits[rng.random(logits.shape) < 0.5] = -np.inf
        logits[:, 60] = 0.5  # something is left
    ids = rng.integers(0, 12, (6, 12))
    model = tiny_model("gpt2")
    config = GenerationConfig(do_sample=True, eos_token_id=[9, 4], **options).for_model(model)
    found = config.processors(prompt=10)(ids, logits)
    peer_config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0, **options})
    peer_config._eos_token_tensor = torch.tensor([9, 4])
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=VOCAB))
    chain = peer._get_logits_processor(peer_config, input_ids_seq_length=10)
    expected = chain(torch.from_numpy(ids), torch.from_numpy(logits)).numpy()
    assert len(chain) >= len(options) - (config.min_length == 5)
    if kind == "ties" and "top_p" in options:  # which of equal ones top_p keeps is torch's unstable sort's choice
        found, expected = np.sort(found, axis=1), np.sort(expected, axis=1)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    kept = ~np.isneginf(found)
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-12)


def test_typical_tokens_are_those_that_surprise_as_expected():
    p = np.array([0.7, 0.1, 0.1, 0.06, 0.04])  # entropy 1.06, surprises 0.36, 2.3, 2.3, 2.81, 3.22
    config = GenerationConfig(do_sample=True, typical_p=0.75)
    scores = config.scores(np.log(p)[None], [np.array([0])])
    assert np.flatnonzero(np.isfinite(scores[0])).tolist() == [0, 1, 2]  # the tie stays


def test_your_own_function_sees_all_tokens_and_comes_before_the_temperature(tiny_model):
    model, calls = tiny_model("gpt2"), []

    def prefer(ids, scores):
        calls.append((ids.copy(), scores.copy()))
        scores = scores.copy()
        scores[:, 40 + ids.shape[1] % 3] = 1e4
        return scores

    ids, mask = prompts(2, 6), np.ones((2, 6), np.int64)
    mask[0, :3] = 0
    out = generate(
        model, ids, 4, attention_mask=mask, logits_processor=[prefer], do_sample=True, temperature=1e3, seed=0
    )
    assert out[:, 6:].tolist() == [[40, 41, 42, 40]] * 2
    assert [seen.shape[1] for seen, _ in calls] == [6, 7, 8, 9]
    np.testing.assert_array_equal(calls[1][0], out[:, :7])
    with pytest.raises(ValueError, match=r"first_row has to return scores \(1, 61\); got float32 of shape \(61,\)"):
        generate(model, ids[:1], 2, logits_processor=[_first_row_only(prefer)])
    with pytest.raises(ValueError, match="put this one into a list"):
        generate(model, ids, 2, logits_processor=prefer)
    with pytest.raises(ValueError, match="returned NaN"):
        generate(model, ids, 2, logits_processor=[lambda ids, scores: scores * np.nan])
    with pytest.raises(ValueError, match="no token can come next"):
        generate(model, ids, 2, do_sample=True, logits_processor=[lambda ids, scores: scores - np.inf])


def _first_row_only(function):
    def first_row(ids, scores):
        return function(ids, scores)[0]

    return first_row


# Sequences.

SETTINGS = [
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "min_new_tokens": 6},
    {"min_length": 12, "repetition_penalty": 1.3},
    {"min_new_tokens": 9, "bad_words_ids": [[5], [9, 10]]},
]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "bart", "t5"])
def test_sequences_are_those_of_transformers(kind, tiny_model, peer_of, torch):
    model = tiny_model(kind, seed=3)
    peer, ids = peer_of(model), prompts(3, 7, seed=1)
    own = [{"encoder_no_repeat_ngram_size": 2}, {"encoder_no_repeat_ngram_size": 1}] if kind in ("bart", "t5") else []
    changed = 0
    plain = generate(model, ids, 12, eos_token_id=[])
    ends = [int(token) for token in np.unique(plain[:, -9:])[:3]]
    for number, options in enumerate([*SETTINGS, *own]):
        stopping, penalty = ((True, 1.0), (False, 2.0), ("never", -0.5))[number % 3]
        several = {"num_beams": 3, "num_return_sequences": 2, "early_stopping": stopping, "length_penalty": penalty}
        for beams in ({}, several):
            options_here = {**options, **beams, "max_new_tokens": 12, "eos_token_id": ends}
            ours = generate(model, ids, pad_token_id=1, **options_here)
            expected = theirs(peer, torch, ids, **options_here).numpy()
            np.testing.assert_array_equal(ours, expected, err_msg=str(options_here))
            changed += not np.array_equal(ours, generate(model, ids, 12, eos_token_id=ends, pad_token_id=1, **beams))
    assert changed >= len(SETTINGS)  # the options do something


def test_a_custom_processor_reaches_beams_as_in_transformers(tiny_model, peer_of, torch):
    model, ids = tiny_model("bart"), prompts(2, 6)
    shift = np.random.default_rng(5).standard_normal(VOCAB) * 3
    seen = generate(model, ids, 8, num_beams=3, logits_processor=[lambda ids, scores: scores + shift])
    mine = lambda ids, scores: scores + torch.from_numpy(shift).float()
    expected = theirs(peer_of(model), torch, ids, num_beams=3, max_new_tokens=8, logits_processor=[mine])
    np.testing.assert_array_equal(seen, expected.numpy())


def test_padding_repeats_nothing(tiny_model):
    model, ids = tiny_model("llama"), prompts(1, 5)
    alone = generate(model, ids, 20, no_repeat_ngram_size=2)
    padded = np.concatenate([alone[:, 5:11], ids], axis=1)  # padded with what is about to be said
    mask = np.array([[0] * 6 + [1] * 5])
    again = generate(model, padded, 20, attention_mask=mask, no_repeat_ngram_size=2)
    np.testing.assert_array_equal(again[:, 6:], alone)
    pairs = list(zip(alone[0], alone[0][1:]))
    assert len(set(pairs)) == len(pairs)


# What is returned beside the tokens.


def compare(found, expected, tolerance=2e-5):
    """Arrays in tuples in tuples against tensors in the same."""
    if isinstance(expected, tuple):
        assert isinstance(found, tuple)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            compare(one, other, tolerance)
    elif expected is None:
        assert found is None
    else:
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bart", "t5"])
@pytest.mark.parametrize("beams", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_what_is_returned_is_what_transformers_returns(kind, beams, use_cache, tiny_model, peer_of, torch):
    model, ids = tiny_model(kind, seed=3), prompts(2, 5)
    peer = peer_of(model)
    end = int(generate(model, ids, 6, eos_token_id=[], no_repeat_ngram_size=1)[0, -3])
    asked = dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True)
    options = {**beams, **asked, "max_new_tokens": 6, "no_repeat_ngram_size": 1, "eos_token_id": [end],
               "return_dict_in_generate": True, "use_cache": use_cache}  # fmt: skip
    ours, expected = generate(model, ids, pad_token_id=1, **options), theirs(peer, torch, ids, **options)
    assert type(ours).__name__ == type(expected).__name__.replace("Beam", "")
    for name in expected:
        if name != "past_key_values":
            compare(getattr(ours, name), expected[name])
    assert len(ours.scores) == len(ours.logits) > 1


def test_only_what_is_asked_for_is_returned(tiny_model):
    model, ids = tiny_model("gpt2"), prompts(2, 4)
    out = generate(model, ids, 3, return_dict_in_generate=True, output_scores=True, do_sample=True, top_k=3, seed=1)
    np.testing.assert_array_equal(out.sequences, generate(model, ids, 3, do_sample=True, top_k=3, seed=1))
    assert out.logits is out.attentions is out.hidden_states is out.beam_indices is None
    assert [(np.isfinite(scores).sum(axis=1) == 3).all() for scores in out.scores] == [True] * 3


# Seeds.


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_what_a_row_draws_depends_on_its_own_seed_only(kind, tiny_model):
    model, ids = tiny_model(kind), prompts(3, 6)
    options = {"do_sample": True, "temperature": 1.5, "eos_token_id": []}
    together = generate(model, ids, 12, seed=[5, 6, 7], **options)
    np.testing.assert_array_equal(generate(model, ids[[2, 0]], 12, seed=[7, 5], **options), together[[2, 0]])
    np.testing.assert_array_equal(generate(model, ids[1:2], 12, seed=6, **options), together[1:2])
    several = generate(model, ids[:1], 12, seed=[8, 5], num_return_sequences=2, **options)
    np.testing.assert_array_equal(several[1], together[0])
    assert not np.array_equal(several[0], several[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"typical_p": 0.0}, r"typical_p must lie in \(0, 1\]"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"min_new_tokens": 9}, r"min_new_tokens \(9\) can't be more than max_new_tokens \(3\)"),
        ({"min_length": -1}, "min_length must not be negative"),
        ({"encoder_no_repeat_ngram_size": 2}, "models with an encoder"),
        ({"seed": [1, 2, 3]}, "the result has 2 rows; got 3 seeds"),
        ({"output_scores": True}, "output_scores is part of the object that return_dict_in_generate=True"),
        ({"cache_implementation": "paged"}, "cache_implementation is one of dynamic"),
        ({"cache_implementation": "static", "use_cache": False}, "leave one of them"),
        ({"cache_implementation": "sliding_window"}, "no layer of this GPT2 has a sliding window"),
    ],
)
def test_bad_options_say_what_is_wrong(options, message, tiny_model):
    with pytest.raises(ValueError, match=message):
        generate(tiny_model("gpt2"), prompts(2, 4), 3, **options)


def test_log_probabilities_of_what_is_left_out():
    found = log_probabilities(np.array([[0.0, -np.inf, 0.0]], np.float32))
    np.testing.assert_allclose(np.exp(found), [[0.5, 0, 0.5]])
    assert found.dtype == np.float64
