"""Caches of keys and values: whichever holds them, a token sees what it would see without one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minilm
from minilm import backend, nn
from minilm.models import GPT2, GPT2Config, Llama, LlamaConfig, Mistral, MistralConfig, Qwen2, Qwen2Config

VOCAB = 61
WIDTHS = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def tiny(kind: str):
    if kind == "gpt2":
        model = GPT2(GPT2Config(vocab_size=VOCAB, n_positions=512, n_embd=24, n_layer=2, n_head=3))
    elif kind == "llama":
        model = Llama(LlamaConfig(**WIDTHS))
    elif kind == "mistral":
        model = Mistral(MistralConfig(**WIDTHS, sliding_window=5))
    else:  # one layer sees all, one slides
        model = Qwen2(Qwen2Config(**WIDTHS, use_sliding_window=True, sliding_window=6, max_window_layers=1))
    stream = backend.Generator(0)
    for name, parameter in model.named_parameters():
        if "ln_" not in name and "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    return model.eval()


def tokens(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, shape)


def logits(model, ids, **settings) -> np.ndarray:
    with minilm.no_grad():
        return model(ids, **settings).logits.data


def same(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


KINDS = ["gpt2", "llama", "mistral", "qwen2"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_different_lengths_do_as_each_would_alone(kind):
    model, texts = tiny(kind), [tokens(n, seed=n) for n in (17, 6, 30)]
    expected = [logits(model, text[None])[0] for text in texts]
    cache = model.new_cache(40, "static", rows=4)  # the last row is never in use
    for row, text in enumerate(texts):
        for piece in np.split(text[:-5], [] if row < 2 else [7, 20]):  # the last text is read in pieces
            found = logits(model, piece[None], cache=cache.rows(row, row + 1))
        same(found[0, -1], expected[row][len(text) - 6])
    assert cache.lengths.tolist() == [12, 1, 25, 0]
    for start, n in ((-5, 1), (-4, 1), (-3, 3)):  # and then all go on, by a token each, or by three
        new = np.stack([text[start:][:n] for text in texts])
        found = logits(model, new, cache=cache.rows(0, 3))
        for row, whole in enumerate(expected):
            same(found[row], whole[start:][:n])
    assert cache.lengths.tolist() == [17, 6, 30, 0]


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_rows_are_freed_refilled_copied_and_cut(kind):
    model, long, short = tiny(kind), tokens(20), tokens(9, seed=1)
    cache = model.new_cache(24, "static", rows=3)
    for row in (0, 2):
        logits(model, long[None, :15], cache=cache.rows(row, row + 1))
    cache.free(0)  # a shorter text after a longer one: what lies behind it is not seen
    logits(model, short[None, :7], cache=cache.rows(0, 1))
    cache.copy(2, 1, length=10)
    assert cache.lengths.tolist() == [7, 10, 15]
    new = np.stack([short[7:8], long[10:11], long[15:16]])
    found = logits(model, new, cache=cache)
    for row, text in enumerate((short[:8], long[:11], long[:16])):
        same(found[row, -1], logits(model, text[None])[0, -1])
    cache.truncate([7, 10, 3])
    cache.select([2, 0, 0, 1])
    assert cache.lengths.tolist() == [3, 7, 7, 10]
    new = np.stack([long[3:4], short[7:8], short[7:8], long[10:11]])
    found = logits(model, new, cache=cache)
    for row, text in enumerate((long[:4], short[:8], short[:8], long[:11])):
        same(found[row, -1], logits(model, text[None])[0, -1])


def test_rows_of_equal_length_may_have_padding():
    model, ids, mask = tiny("llama"), tokens(2, 12), np.ones((2, 12), np.int64)
    mask[1, :5] = 0
    cache, found = model.new_cache(12, "static", rows=2), []
    for start, stop in ((0, 8), (8, 9), (9, 12)):
        found.append(logits(model, ids[:, start:stop], attention_mask=mask[:, :stop], cache=cache))
    found = np.concatenate(found, axis=1)
    same(found[0], logits(model, ids[:1])[0])
    same(found[1, 5:], logits(model, ids[1:, 5:])[0])


def test_a_static_cache_says_what_does_not_fit():
    model = tiny("gpt2")
    cache = model.new_cache(8, "static", rows=2)
    with minilm.no_grad():
        with pytest.raises(ValueError, match="room for 8 tokens; it was to take up 9"):
            model(tokens(2, 9), cache=cache)
        with pytest.raises(ValueError, match="the cache holds keys and values like"):
            model(tokens(3, 2), cache=cache)
        with pytest.raises(ValueError, match="has rows 0 to 1; got 1 to 2"):
            cache.rows(1, 3)
        model(tokens(1, 4), cache=cache.rows(1, 2))
        with pytest.raises(ValueError, match="no attention_mask"):
            model(tokens(2, 1), attention_mask=np.ones((2, 5)), cache=cache)
        with pytest.raises(ValueError, match="part of a cache"):
            cache.rows(0, 1).select([0])
        with pytest.raises(ValueError, match="can't be copied"):
            cache.copy(1, 0, length=5)
        with pytest.raises(ValueError, match="can't be kept"):
            cache.truncate([1, 1])
    with pytest.raises(RuntimeError, match="no_grad"):
        model(tokens(1, 1), cache=cache.rows(0, 1))
    with pytest.raises(ValueError, match="at least a row"):
        model.new_cache(0, "static", rows=1)
    with pytest.raises(ValueError, match='"dynamic", "static" or'):
        model.new_cache(8, "paged")


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_sliding_window_cache_forgets_what_nobody_sees(kind, padded):
    model, n = tiny(kind), 230
    ids, mask = tokens(2, n), np.ones((2, n), np.int64)
    if padded:
        mask[1, :100] = 0
    expected = logits(model, ids, attention_mask=mask)
    cache, found = model.new_cache(implementation="sliding_window"), []
    bounds = [0, 90, 93, 120, *range(121, n + 1)]  # the first piece alone is longer than what is kept
    for start, stop in itertools.pairwise(bounds):
        given = {"attention_mask": mask[:, :stop]} if padded else {}
        found.append(logits(model, ids[:, start:stop], cache=cache, **given))
    same(np.concatenate(found, axis=1)[mask == 1], expected[mask == 1])
    assert len(cache) == n
    sizes = [buffer.shape[2] for buffer in cache._keys]
    assert sizes[1] < 80
    assert sizes[0] < 80 if kind == "mistral" else sizes[0] >= n


def test_a_sliding_window_cache_goes_back_as_far_as_it_remembers():
    model, ids = tiny("mistral"), tokens(1, 40)
    cache = model.new_cache(implementation="sliding_window")
    logits(model, ids[:, :30], cache=cache)
    cache.truncate(20)
    same(logits(model, ids[:, 20:], cache=cache), logits(model, ids)[:, 20:])
    logits(model, tokens(1, 100), cache=cache)
    with pytest.raises(ValueError, match="can't go back to 50 tokens: it has dropped"):
        cache.truncate(50)
    with pytest.raises(ValueError, match="can't be kept"):
        cache.truncate(141)
    with pytest.raises(ValueError, match="no layer of this GPT2 has a sliding window"):
        tiny("gpt2").new_cache(implementation="sliding_window")


def test_a_cache_cut_short_goes_on_from_there():
    model, ids = tiny("gpt2"), tokens(2, 12)
    cache = nn.KeyValueCache(2)
    logits(model, ids, cache=cache)
    cache.truncate(5)
    assert len(cache) == 5
    same(logits(model, ids[:, 5:], cache=cache), logits(model, ids)[:, 5:])
    with pytest.raises(ValueError, match="can't be kept"):
        cache.truncate(13)
