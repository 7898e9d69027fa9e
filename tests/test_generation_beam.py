"""Beam search, and decoding of encoder-decoder models: the sequences of transformers, and what only ours promises."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import minilm
from minilm import backend
from minilm.generation import generate
from minilm.generation.beam import Finished
from minilm.generation.options import BeamOptions
from minilm.generation.processors import log_probabilities
from minilm.models import (
    GPT2,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    Llama,
    LlamaConfig,
    MarianConfig,
    MarianMTModel,
)
from minilm.tokenization import Tokenizer

VOCAB = 61
SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 2), ("ffn_dim", 40), ("attention_heads", 3))
}
SEQ2SEQ = {
    "vocab_size": VOCAB, "d_model": 24, "max_position_embeddings": 40, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "forced_eos_token_id": None, **SIDES,
}  # fmt: skip


def tiny(kind: str, seed=0, **changes):
    """A small model with weights large enough that its likeliest tokens vary."""
    if kind == "gpt2":
        config = {"vocab_size": VOCAB, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3}
        model = GPT2(GPT2Config(**{**config, **changes}))
    elif kind == "llama":
        config = {
            "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None,
        }  # fmt: skip
        model = Llama(LlamaConfig(**{**config, **changes}))
    elif kind == "bart":
        model = BartForConditionalGeneration(BartConfig(**{**SEQ2SEQ, **changes}))
    else:
        model = MarianMTModel(MarianConfig(**{**SEQ2SEQ, **changes}))
    stream = backend.Generator(seed)
    for name, parameter in model.named_parameters():
        if "ln_" not in name and "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    return model.eval()


def prompts(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCAB, shape)


def unequal(side="left"):
    """Prompts of 3, 7 and 5 tokens, and their mask."""
    ids, mask = prompts(3, 7), np.ones((3, 7), np.int64)
    for row, padding in ((0, 4), (2, 2)):
        mask[row, slice(0, padding) if side == "left" else slice(7 - padding, 7)] = 0
    return np.where(mask, ids, 1), mask


@pytest.fixture(scope="module")
def pair(transformers, tmp_path_factory):
    """pair(kind, **changes): our model and transformers' with the same weights."""

    def make(kind, **changes):
        model = tiny(kind, **changes)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        return model, getattr(transformers, model.architecture).from_pretrained(folder).eval()

    return make


def theirs(peer, torch, ids, mask, **options) -> np.ndarray:
    """What transformers generates, with padding after the end of each row."""
    if options.get("eos_token_id") == []:
        options["eos_token_id"] = None
        peer.generation_config.eos_token_id = None
    found = peer.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **options)
    return found.numpy()


SETTINGS = [
    {"num_beams": 4},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "num_return_sequences": 3},
    {"num_beams": 5, "length_penalty": -1.0, "early_stopping": "never", "num_return_sequences": 2},
    {"num_beams": 2, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never", "num_return_sequences": 4},
    {"num_beams": 3, "repetition_penalty": 1.5, "num_return_sequences": 2},
]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bart", "marian"])
@pytest.mark.parametrize("padded", [False, True], ids=["equal", "unequal"])
def test_beams_are_those_of_transformers(kind, padded, pair, torch):
    ends_seen, lengths_seen = 0, set()
    for seed, tied in ((0, True), (1, False)):
        model, peer = pair(kind, seed=seed, tie_word_embeddings=tied)
        ids, mask = unequal("right" if kind in ("bart", "marian") else "left")
        if not padded:
            ids, mask = prompts(3, 7, seed=seed), np.ones((3, 7), np.int64)
        plain = generate(model, ids, 14, attention_mask=mask, eos_token_id=[])
        ends = [int(token) for token in np.unique(plain[:, -8:])[:3]]  # so that rows end at different times
        for number, settings in enumerate(SETTINGS):
            eos = ends if (number + seed) % 2 else ends[:1]
            if settings.get("repetition_penalty") and padded:
                continue  # transformers counts the padding as seen
            options = {**settings, "eos_token_id": eos, "pad_token_id": 1, "max_new_tokens": 14}
            ours = generate(model, ids, attention_mask=mask, **options)
            expected = theirs(peer, torch, ids, mask, do_sample=False, **options)
            np.testing.assert_array_equal(ours, expected, err_msg=f"{settings}, eos {eos}, seed {seed}")
            new = ours[:, -14:]
            ends_seen += np.isin(new, eos).sum()
            lengths_seen |= set((new != 1).sum(axis=1))
    assert ends_seen > 20
    assert len(lengths_seen) > 2  # searches end at different times


@pytest.mark.parametrize("kind", ["gpt2", "bart", "marian"])
def test_without_an_end_token_all_beams_are_of_full_length(kind, pair, torch):
    model, peer = pair(kind)
    peer.generation_config.eos_token_id = None
    ids = prompts(2, 5)
    for settings in SETTINGS[:3]:
        ours = generate(model, ids, 9, eos_token_id=[], **settings)
        expected = theirs(peer, torch, ids, np.ones_like(ids), do_sample=False, max_new_tokens=9, **settings)
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", ["bart", "marian"])
@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "decoder_start_token_id": 9},
        {"forced_eos_token_id": [5], "eos_token_id": [2, 5], "repetition_penalty": 1.4},
    ],
    ids=["plain", "forced", "ends"],
)
def test_encoder_decoder_models_write_what_transformers_writes(kind, num_beams, changes, pair, torch):
    changes = dict(changes)
    penalty = changes.pop("repetition_penalty", 1.0)
    if kind == "marian":
        changes |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 53}
    model, peer = pair(kind, seed=3, tie_word_embeddings=False, **changes)
    ids, mask = unequal("right")
    for given in (mask, np.ones_like(mask)):
        options = {"max_new_tokens": 12, "num_beams": num_beams, "repetition_penalty": penalty}
        ours = generate(model, ids, attention_mask=given, **options)
        np.testing.assert_array_equal(ours, theirs(peer, torch, ids, given, do_sample=False, **options))
        assert (ours[:, 0] == model.config.decoder_start_token_id).all()
        assert len(np.unique(ours)) > 3  # not one token again and again
        if model.config.forced_bos_token_id is not None:
            assert (ours[:, 1] == 7).all()
            assert all(2 in row[1:] for row in ours)
        np.testing.assert_array_equal(ours, generate(model, ids, attention_mask=given, use_cache=False, **options))


def test_options_of_a_call_go_before_the_configs(pair, torch):
    model, peer = pair("bart", forced_bos_token_id=7)
    ids = prompts(2, 5)
    options = {"decoder_start_token_id": 4, "forced_bos_token_id": 11, "forced_eos_token_id": 13, "max_new_tokens": 5}
    ours = generate(model, ids, **options)
    np.testing.assert_array_equal(ours, theirs(peer, torch, ids, np.ones_like(ids), do_sample=False, **options))
    assert ours[:, :2].tolist() == [[4, 11]] * 2
    assert (ours[:, -1] == 13).all()
    assert (generate(model, ids, 1, forced_eos_token_id=13)[:, 1] == 13).all()  # the last token is the first as well


def test_what_generation_config_does_not_force_or_ban_is_not(transformers, torch, tmp_path):
    told = {"forced_eos_token_id": 2, "forced_bos_token_id": 5, "bad_words_ids": [[9]]}
    tiny("bart", **told).save_pretrained(tmp_path)
    path, ids = tmp_path / "generation_config.json", prompts(2, 5)
    for kept, first in (({}, False), ({"forced_bos_token_id": 5}, True)):
        tokens = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        path.write_text(json.dumps(tokens | kept))
        model = BartForConditionalGeneration.from_pretrained(tmp_path)
        peer = transformers.BartForConditionalGeneration.from_pretrained(tmp_path)
        ours = generate(model, ids, 4)
        expected = theirs(peer, torch, ids, np.ones_like(ids), do_sample=False, max_new_tokens=4)
        np.testing.assert_array_equal(ours, expected)
        assert ((ours[:, 1] == 5).all(), (ours[:, -1] == 2).any()) == (first, False)
    path.unlink()
    config = BartForConditionalGeneration.from_pretrained(tmp_path).config
    assert {name: getattr(config, name) for name in told} == told


@pytest.mark.parametrize("num_beams", [1, 3])
def test_bad_words_never_come_as_in_transformers(num_beams, pair, torch):
    ids = prompts(2, 5)
    plain = tiny("marian", seed=1, tie_word_embeddings=False).generate(ids, 12, num_beams=num_beams)[0].tolist()
    words = [[plain[2]], plain[5:7], plain[7:10], [2]]  # the last is the end, which may come all the same
    model, peer = pair("marian", seed=1, tie_word_embeddings=False, bad_words_ids=words)
    ours = generate(model, ids, 12, num_beams=num_beams)
    expected = theirs(peer, torch, ids, np.ones_like(ids), do_sample=False, max_new_tokens=12, num_beams=num_beams)
    np.testing.assert_array_equal(ours, expected)
    for row in ours.tolist():
        assert plain[2] not in row
        assert not any(row[at : at + len(word)] == word for word in words[1:3] for at in range(len(row)))
    assert generate(model, ids, 12, num_beams=num_beams, bad_words_ids=[])[0].tolist() == plain


# What only ours promises.


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_enough_beams_find_the_likeliest_of_all_sequences(kind):
    changes = {"vocab_size": 5, "pad_token_id": 1} if kind == "bart" else {"vocab_size": 5}
    model, n = tiny(kind, **changes), 3
    ids = np.array([[3, 4, 2]]) if kind == "gpt2" else np.array([[3, 4, 3]])
    start = ids if kind == "gpt2" else np.array([[2]])
    best, total = None, -np.inf
    with minilm.no_grad():
        for tail in itertools.product(range(5), repeat=n):
            tokens = np.concatenate([start, [tail]], axis=1)
            out = model(tokens) if kind == "gpt2" else model(ids, decoder_input_ids=tokens)
            logp = log_probabilities(out.logits.data)[0, -n - 1 : -1]
            score = logp[np.arange(n), list(tail)].sum()
            if score > total:
                best, total = tokens, score
    found = generate(model, ids, n, num_beams=25, eos_token_id=[])
    np.testing.assert_array_equal(found, best)
    assert not np.array_equal(found, generate(model, ids, n, eos_token_id=[])) or kind == "bart"


@pytest.mark.parametrize("kind", ["gpt2", "marian"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_gets_the_beams_it_gets_alone(kind, use_cache):
    model = tiny(kind)
    ids, mask = unequal("right" if kind == "marian" else "left")
    options = {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": [5, 9, 20], "pad_token_id": 1}
    together = generate(model, ids, 10, attention_mask=mask, use_cache=use_cache, **options)
    prompt = 1 if kind == "marian" else 7
    for row in range(3):
        alone = generate(model, ids[row, mask[row] != 0][None], 10, **options)
        new = alone[:, 1 if kind == "marian" else mask[row].sum() :]
        found = together[2 * row : 2 * row + 2, prompt:]
        np.testing.assert_array_equal(found[:, : new.shape[1]], new)
        assert (found[:, new.shape[1] :] == 1).all()


def test_past_the_window_beams_go_on_alike_with_and_without_the_cache():
    model, ids = tiny("gpt2", n_positions=8), prompts(2, 5)
    found = generate(model, ids, 12, num_beams=3)
    assert found.shape == (2, 17)
    np.testing.assert_array_equal(found, generate(model, ids, 12, num_beams=3, use_cache=False))


def test_the_encoder_and_the_prompt_are_read_once():
    model, ids, read = tiny("bart"), prompts(2, 6), []
    model.encoder.register_forward_hook(lambda module, args, out: read.append(("encoder", *args[0].shape)))
    model.decoder.register_forward_hook(lambda module, args, out: read.append(("decoder", *args[0].shape)))
    generate(model, ids, 4, num_beams=3, eos_token_id=[])
    assert read == [("encoder", 2, 6), ("decoder", 2, 1)] + [("decoder", 6, 1)] * 3
    read.clear()
    generate(model, ids, 3, do_sample=True, num_return_sequences=2, eos_token_id=[], seed=0)
    assert read == [("encoder", 2, 6)] + [("decoder", 4, 1)] * 3


def test_several_samples_of_a_prompt_are_drawn_apart():
    model, ids = tiny("gpt2"), prompts(2, 4)
    found = generate(model, ids, 6, do_sample=True, num_return_sequences=3, seed=0)
    np.testing.assert_array_equal(found[:, :4], np.repeat(ids, 3, axis=0))
    assert len({tuple(row) for row in found}) == 6


def test_stop_strings_end_beams():
    tokenizer = Tokenizer.byte()
    model = tiny("gpt2", vocab_size=tokenizer.vocab_size)
    ids = np.array([[65, 66]])
    plain = generate(model, ids, 8, num_beams=3)[0]
    stop = tokenizer.decode(plain[5:6])
    found = generate(model, ids, 8, num_beams=3, num_return_sequences=3, stop_strings=stop, tokenizer=tokenizer)
    ends = [np.flatnonzero(row[2:] == plain[5]) for row in found]
    assert any(len(end) for end in ends)
    for row, end in zip(found, ends):
        assert not len(end) or not row[2 + end[0] + 1 :].any()  # nothing but padding follows


def test_a_search_is_over_when_what_is_followed_can_only_lose():
    def over(early_stopping, length_penalty, running=-3.0):
        found = Finished(BeamOptions(2, length_penalty, early_stopping), max_new_tokens=10)
        found.add(-2.0, np.array([1]), np.zeros(2))
        found.settle(running, 4)
        assert not found.done  # one of the two beams is not finished
        found.add(-4.0, np.array([1]), np.zeros(2))
        found.settle(running, 4)
        return found.done

    assert over(True, 1.0)
    assert not over(False, 1.0)  # -3/4 beats -4/2
    assert over(False, 1.0, running=-9.0)
    assert not over("never", 1.0, running=-9.0)  # -9/10 would beat -4/2
    assert over("never", 0.0, running=-9.0)


def test_no_new_tokens_are_the_prompt():
    ids = prompts(2, 3)
    np.testing.assert_array_equal(generate(tiny("gpt2"), ids, 0, num_beams=2), ids)
    assert generate(tiny("bart"), ids, 0).tolist() == [[2], [2]]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gpt2", {"num_beams": 0}, "num_beams must be at least 1"),
        ("gpt2", {"num_beams": 2, "num_return_sequences": 3}, "can't be more than num_beams"),
        ("gpt2", {"num_return_sequences": 2}, "greedy decoding finds one"),
        ("gpt2", {"num_beams": 2, "early_stopping": "soon"}, "early_stopping is True, False"),
        ("gpt2", {"length_penalty": 2.0}, "are for beam search"),
        ("gpt2", {"num_beams": 2, "do_sample": True}, "draws nothing"),
        ("gpt2", {"num_beams": 2, "streamer": print}, "streamer"),
        ("gpt2", {"bad_words_ids": [5]}, "bad_words_ids is a list of words"),
        ("gpt2", {"decoder_start_token_id": 2}, "models with an encoder"),
        ("bart", {"max_new_tokens": 41}, "writes 40 tokens at most"),
        ("none", {}, "decoder_start_token_id is the token that starts"),
    ],
)
def test_bad_options_say_what_is_wrong(kind, options, message):
    model = tiny("bart", decoder_start_token_id=None) if kind == "none" else tiny(kind)
    with pytest.raises(ValueError, match=message):
        generate(model, prompts(2, 4), **{"max_new_tokens": 3, **options})


def test_a_model_gone_to_nan_is_reported():
    model = tiny("bart")
    model.final_logits_bias.data[0, 3] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        generate(model, prompts(1, 4), 3, num_beams=2)
