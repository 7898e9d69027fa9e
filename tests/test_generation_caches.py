"""However decoding is computed, with whichever cache, in pieces or with guesses, the tokens are the same."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm.generation import GenerationConfig, PrefixCache, generate
from minilm.generation.processors import log_probabilities
from minilm.models import CausalLMOutput, RecurrentConfig, RecurrentLM
from minilm.tokenization import Tokenizer

VOCAB, N = 61, 28


def prompts(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCAB, shape)


def cyclic(length: int) -> np.ndarray:
    """A prompt that says the same again and again, so that guesses from it come true."""
    return np.resize([5, 9, 30, 7, 12], length)[None]


WAYS = {
    "without a cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "sliding window": {"cache_implementation": "sliding_window"},
    "in pieces": {"prefill_chunk_size": 5},
    "in pieces, static": {"prefill_chunk_size": 1, "cache_implementation": "static"},
    "in pieces, sliding window": {"prefill_chunk_size": 7, "cache_implementation": "sliding_window"},
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
    "draft": {"assistant_model": "draft", "num_assistant_tokens": 3},
    "draft, static, in pieces": {
        "assistant_model": "draft", "cache_implementation": "static", "prefill_chunk_size": 4},
    "the model as its own draft": {"assistant_model": "itself"},
    "guesses without a cache": {"prompt_lookup_num_tokens": 2, "use_cache": False},
}  # fmt: skip


def pairs(kinds, ways) -> list[tuple[str, str]]:
    """Those of all kinds and ways that go together: with a window to slide, or a prompt to be read in pieces."""
    return [
        (kind, way)
        for kind in kinds
        for way in ways
        if ("sliding" not in way or kind == "mistral") and ("pieces" not in way or kind not in ("bart", "t5"))
    ]


@pytest.mark.parametrize(("kind", "way"), pairs(["gpt2", "llama", "mistral", "bart", "t5"], WAYS))
def test_greedy_tokens_are_the_same_in_every_way(kind, way, tiny_model):
    options, model = dict(WAYS[way]), tiny_model(kind, seed=1)
    if "assistant_model" in options:
        itself = options["assistant_model"] == "itself"
        options["assistant_model"] = model if itself else tiny_model(kind, seed=2)
    ids = [cyclic(17), prompts(1, 6)] if "guess" in way or "draft" in way or "lookup" in way else [prompts(3, 17)]
    for given in ids:
        plain = generate(model, given, N, eos_token_id=[])
        np.testing.assert_array_equal(generate(model, given, N, eos_token_id=[], **options), plain)
        end = int(plain[0, -9])
        np.testing.assert_array_equal(
            generate(model, given, N, eos_token_id=end, repetition_penalty=1.1, **options),
            generate(model, given, N, eos_token_id=end, repetition_penalty=1.1),
        )


@pytest.mark.parametrize(("kind", "way"), pairs(["gpt2", "llama", "mistral"], list(WAYS)[:6]))
def test_rows_with_padding_get_what_they_get_alone(kind, way, tiny_model):
    model, ids, mask = tiny_model(kind), prompts(3, 12), np.ones((3, 12), np.int64)
    mask[0, :9], mask[1, :2] = 0, 0
    together = generate(model, ids, 20, attention_mask=mask, **WAYS[way])
    for row, real, out in zip(ids, mask, together):
        np.testing.assert_array_equal(generate(model, row[real == 1][None], 20)[0, -20:], out[-20:])


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_beams_with_a_static_cache(kind, tiny_model):
    model, ids = tiny_model(kind), prompts(2, 6)
    options = {"num_beams": 3, "num_return_sequences": 2}
    np.testing.assert_array_equal(
        generate(model, ids, 12, cache_implementation="static", **options), generate(model, ids, 12, **options)
    )


@pytest.mark.parametrize("way", ["without a cache", "static", "in pieces", "prompt lookup", "draft"])
def test_past_the_window_tokens_are_the_same_too(way, tiny_model):
    model, ids = tiny_model("gpt2", n_positions=16), cyclic(11)
    options = dict(WAYS[way])
    if "assistant_model" in options:
        options["assistant_model"] = tiny_model("gpt2", seed=2, n_positions=24)
    np.testing.assert_array_equal(generate(model, ids, N, **options), generate(model, ids, N))


def test_a_prompt_in_pieces_is_read_piece_by_piece(tiny_model):
    model, read = tiny_model("gpt2"), []
    model.transformer.register_forward_hook(lambda module, args, out: read.append(args[0].shape[1]))
    generate(model, prompts(2, 13), 3, prefill_chunk_size=5)
    assert read == [5, 5, 3, 1, 1]


# Guesses.


def steps_of(model, read=None) -> list[int]:
    """How many tokens each step looks at, from now on."""
    read = [] if read is None else read
    model.transformer.register_forward_hook(lambda module, args, out: read.append(args[0].shape[1]))
    return read


def test_guesses_that_come_true_save_steps(tiny_model):
    model, twin = tiny_model("gpt2", seed=1), tiny_model("gpt2", seed=1)
    read, drafted = steps_of(model), steps_of(twin)
    out = generate(model, prompts(1, 4), 12, assistant_model=twin, num_assistant_tokens=3, eos_token_id=[])
    assert out.shape == (1, 16)
    assert read == [4 + 3, 4, 4]  # each step takes three guesses and adds a token
    assert len(drafted) == 9


def test_looked_up_tokens_are_those_that_followed(tiny_model):
    model = tiny_model("gpt2")
    follow = {5: 9, 9: 30, 30: 7, 7: 12, 12: 5}

    def go_round(ids, scores):  # whatever the model says
        return np.where(np.arange(VOCAB) == follow[int(ids[0, -1])], 1.0, 0.0)[None]

    read, seen = steps_of(model), []
    options = {"logits_processor": [go_round], "streamer": seen.append}
    out = generate(model, cyclic(8), 11, prompt_lookup_num_tokens=4, **options)
    np.testing.assert_array_equal(out, cyclic(19))
    assert read == [8 + 4, 5, 1]  # each step adds a token to the guesses, and the last is the eleventh
    np.testing.assert_array_equal(np.concatenate(seen), out[0, 8:])


class Table(minilm.nn.Module):
    """A model of which token follows which, by logits (V, V); it needs no cache."""

    max_length = 1000

    def __init__(self, seed: int, vocab_size: int = 6):
        self.table = np.random.default_rng(seed).standard_normal((vocab_size, vocab_size)).astype(np.float32) * 2

    def forward(self, ids, attention_mask=None, cache=None, logits_to_keep=0):
        return CausalLMOutput(minilm.tensor(self.table[ids[:, -logits_to_keep:]]))


FILTERED = {"top_k": 4, "repetition_penalty": 1.3}


@pytest.mark.parametrize(
    ("guess", "options"), [("draft", {"temperature": 1.4}), ("draft", FILTERED), ("lookup", FILTERED), ("itself", {})]
)
def test_drawn_tokens_follow_the_models_law_whatever_is_guessed(guess, options):
    """How often each three tokens come, against their probability."""
    model, ids, n = Table(0), np.array([[3, 4, 5, 3, 4]]), 1200
    guesses = {"prompt_lookup_num_tokens": 2}
    if guess != "lookup":
        guesses = {"assistant_model": model if guess == "itself" else Table(1), "num_assistant_tokens": 2}
    law, config = np.zeros((6, 6, 6)), GenerationConfig(do_sample=True, **options)
    for three in np.ndindex(6, 6, 6):
        tokens, probability = list(ids[0]), 1.0
        for token in three:
            scores = config.scores(model.table[tokens[-1]][None].astype(np.float64), [np.array(tokens)])
            probability *= np.exp(log_probabilities(scores))[0, token]
            tokens.append(token)
        law[three] = probability
    law, settings = n * law, {"do_sample": True, "use_cache": False, **options, **guesses}
    found = np.zeros((6, 6, 6))
    for seed in range(n):
        found[tuple(generate(model, ids, 3, seed=seed, **settings)[0, -3:])] += 1
    assert (found[law == 0] == 0).all()
    for axes in ((), (0,), (1, 2), (0, 1)):  # all three tokens, and parts of them
        expected = law.sum(axis=axes)
        assert (np.abs(found.sum(axis=axes) - expected) <= 5 * np.sqrt(expected) + 3).all()


def test_a_stop_string_and_an_end_cut_what_was_accepted(tiny_model):
    tokenizer = Tokenizer.byte()
    model = tiny_model("gpt2", vocab_size=tokenizer.vocab_size)
    ids = np.array([[65, 66]])
    plain = generate(model, ids, 12)[0]
    stop = tokenizer.decode(plain[5:7])
    options = {"stop_strings": stop, "tokenizer": tokenizer}
    expected = generate(model, ids, 12, **options)
    seen = []
    np.testing.assert_array_equal(
        generate(model, ids, 12, assistant_model=model, streamer=seen.append, **options), expected
    )
    np.testing.assert_array_equal(np.concatenate(seen), expected[0, 2:])
    assert expected.shape[1] < 14


# A beginning that is shared.


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_conversation_is_read_once(kind, tiny_model):
    model, prefix, read = tiny_model(kind), PrefixCache(), []
    inner = model.transformer if kind == "gpt2" else model.model.embed_tokens
    inner.register_forward_hook(lambda module, args, out: read.append(args[0].shape[1]))
    history = prompts(1, 6)
    for turn in range(3):
        alone = generate(model, history, 4)
        read.clear()
        out = generate(model, history, 4, past_key_values=prefix)
        np.testing.assert_array_equal(out, alone)
        assert read == [6 if not turn else 4, 1, 1, 1]  # the last answer's last token, and what came after it
        history = np.concatenate([out, prompts(1, 3, seed=turn + 1)], axis=1)
    other = history.copy()
    other[0, 5:] = prompts(1, other.shape[1] - 5, seed=9)
    alone = generate(model, other, 4)
    read.clear()
    np.testing.assert_array_equal(generate(model, other, 4, past_key_values=prefix, prefill_chunk_size=4), alone)
    shared = prefix.common(other[0][:6])
    assert shared == 5
    assert sum(read[:-3]) == other.shape[1] - 5
    prefix.forget()
    assert prefix.common(other[0]) == 0
    np.testing.assert_array_equal(generate(model, other, 4, past_key_values=prefix, prompt_lookup_num_tokens=3), alone)


def test_a_prefix_survives_an_interruption_and_a_full_window(tiny_model):
    model, prefix, ids = tiny_model("gpt2", n_positions=20), PrefixCache(), prompts(1, 12)

    def interrupt(tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, ids, 5, past_key_values=prefix, streamer=interrupt)

    def fail(*args):
        raise KeyboardInterrupt

    remove = model.transformer.h[1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):  # one layer has the new tokens, the other one has not
        generate(model, np.concatenate([ids, ids[:, :3]], axis=1), 5, past_key_values=prefix)
    remove()
    for n in (5, 30, 3):  # the second time the oldest tokens are dropped
        np.testing.assert_array_equal(generate(model, ids, n, past_key_values=prefix), generate(model, ids, n))


def test_a_recurrent_state_is_reused_where_a_text_goes_on():
    model, prefix = RecurrentLM(RecurrentConfig(vocab_size=VOCAB, hidden_size=16, num_layers=1)).eval(), PrefixCache()
    ids = prompts(1, 6)
    first = generate(model, ids, 4, past_key_values=prefix)
    assert prefix.common(first[0]) == 9
    longer = np.concatenate([first, prompts(1, 2, seed=1)], axis=1)
    for given in (longer, ids):  # the second one would have to go back
        np.testing.assert_array_equal(generate(model, given, 4, past_key_values=prefix), generate(model, given, 4))
    with pytest.raises(ValueError, match="a RecurrentState can't: decode without guesses"):
        generate(model, cyclic(9), 20, prompt_lookup_num_tokens=3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gpt2", {"prefill_chunk_size": 0}, "prefill_chunk_size must be at least 1"),
        ("gpt2", {"prefill_chunk_size": 2, "use_cache": False}, "with a cache only"),
        ("bart", {"prefill_chunk_size": 2}, "decoder-only"),
        ("gpt2", {"prompt_lookup_num_tokens": 2}, "one text at a time"),
        ("gpt2", {"rows": 1, "prompt_lookup_num_tokens": 2, "assistant_model": "gpt2"}, "both guess tokens"),
        ("gpt2", {"rows": 1, "assistant_model": "bart"}, "must be of the model's kind"),
        ("gpt2", {"rows": 1, "assistant_model": "gpt2", "vocab_size": 50}, "GPT2 has 61, GPT2 50"),
        ("mistral", {"rows": 1, "prompt_lookup_num_tokens": 2, "cache_implementation": "sliding_window"}, "taken back"),
        (
            "bart",
            {"rows": 1, "assistant_model": "bart", "max_new_tokens": 65, "max_position_embeddings": 70},
            "the assistant_model writes 64 tokens at most",
        ),
        ("gpt2", {"past_key_values": PrefixCache()}, "keeps one text"),
        ("bart", {"rows": 1, "past_key_values": PrefixCache()}, "keeps one text of a decoder-only"),
        ("bart", {"cache_implementation": "sliding_window"}, '"dynamic" or "static"'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(kind, options, message, tiny_model):
    options = dict(options)
    ids = prompts(options.pop("rows", 2), 4)
    changes = {name: options.pop(name) for name in ("vocab_size", "max_position_embeddings") if name in options}
    if "assistant_model" in options:
        options["assistant_model"] = tiny_model(options["assistant_model"])
    with pytest.raises(ValueError, match=message):
        generate(tiny_model(kind, **changes), ids, **{"max_new_tokens": 3, **options})


def test_a_prefix_belongs_to_one_model(tiny_model):
    prefix, ids = PrefixCache(), prompts(1, 4)
    generate(tiny_model("gpt2"), ids, 2, past_key_values=prefix)
    with pytest.raises(ValueError, match="filled by another model"):
        generate(tiny_model("gpt2"), ids, 2, past_key_values=prefix)
