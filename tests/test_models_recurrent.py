"""Recurrent language models and translators, and the n-gram model: what they compute, keep, learn and refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minilm
from minilm.evaluation import check_model
from minilm.models import NGram, RecurrentConfig, RecurrentLM, RecurrentSeq2Seq, load
from minilm.optim import AdamW

KINDS = ["lstm", "gru"]


def language_model(cell, **changes):
    config = RecurrentConfig(**{"vocab_size": 31, "hidden_size": 12, "num_layers": 2, "cell": cell, **changes})
    return RecurrentLM(config, minilm.backend.Generator(0)).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cell", KINDS)
def test_what_must_be_true_of_a_language_model_is(cell, tied):
    results = check_model(language_model(cell, tie_word_embeddings=tied), length=12)
    assert all(result.ok for result in results), [str(result) for result in results]


@pytest.mark.parametrize("cell", KINDS)
def test_saved_and_loaded_it_writes_the_same(cell, tmp_path):
    model = language_model(cell)
    model.save_pretrained(tmp_path)
    back, ids = load(tmp_path), np.array([[1, 2, 3], [4, 5, 6]])
    assert type(back) is RecurrentLM
    np.testing.assert_array_equal(back.generate(ids, 9), model.generate(ids, 9))
    np.testing.assert_array_equal(model.generate(ids, 9, use_cache=False), model.generate(ids, 9))


@pytest.mark.parametrize("cell", KINDS)
def test_it_learns_to_copy_what_a_unigram_can_not(cell):
    model = language_model(cell, vocab_size=8, hidden_size=24, num_layers=1).train()
    optimizer, random = AdamW(model.parameters(), lr=0.02), np.random.default_rng(0)
    for _ in range(150):
        first = random.integers(0, 8, (16, 3))
        ids = np.concatenate([first, first], axis=1)
        optimizer.zero_grad()
        targets = ids[:, 1:].copy()
        targets[:, :2] = -100
        loss = model(ids[:, :-1], targets=targets).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * np.log(8)


@pytest.mark.parametrize("cell", KINDS)
def test_a_translator_learns_to_reverse_and_looks_where_it_copies_from(cell):
    config = RecurrentConfig(vocab_size=9, hidden_size=32, num_layers=1, cell=cell, eos_token_id=None)
    model = RecurrentSeq2Seq(config, minilm.backend.Generator(0))
    optimizer, random = AdamW(model.parameters(), lr=0.01), np.random.default_rng(0)
    lengths = np.array([3, 4, 5, 6] * 8)
    mask = (np.arange(6) < lengths[:, None]).astype(np.int64)

    def batch():
        source = np.where(mask, random.integers(1, 9, (32, 6)), 0)
        target = np.full((32, 6), -100)
        for row, length in enumerate(lengths):
            target[row, :length] = source[row, :length][::-1]
        return source, target

    for _ in range(250):
        source, target = batch()
        given = np.concatenate([np.zeros((32, 1), np.int64), np.maximum(target, 0)[:, :-1]], axis=1)
        optimizer.zero_grad()
        out = model(source, given, mask, targets=target)
        out.loss.backward()
        optimizer.step()
    source, target = batch()
    found = model.translate(source, 6, 0, mask)
    assert (found == target)[target != -100].mean() > 0.9
    weights = model(source, np.concatenate([np.zeros((32, 1), np.int64), found[:, :-1]], axis=1), mask).attentions[0]
    np.testing.assert_allclose(weights.data.sum(axis=2), 1, atol=1e-5)
    assert not weights.data[~np.broadcast_to(mask[:, None].astype(bool), weights.shape)].any()


def test_a_translation_stops_at_its_end(tmp_path):
    config = RecurrentConfig(vocab_size=9, hidden_size=8, num_layers=1, eos_token_id=5)
    model = RecurrentSeq2Seq(config, minilm.backend.Generator(0))
    model.embed_tokens.weight.data[5] = 100 * np.abs(model.combine.bias.data)
    model.combine.bias.data[:] = np.abs(model.combine.bias.data) + 5
    assert model.translate([[1, 2, 3]], 10, 0).tolist() == [[5]]
    model.save_pretrained(tmp_path)
    assert load(tmp_path).translate([[1, 2, 3]], 10, 0).tolist() == [[5]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="cell is 'lstm' or 'gru', not 'rnn'"):
        RecurrentConfig(cell="rnn")
    with pytest.raises(ValueError, match="hidden_size must be even"):
        RecurrentSeq2Seq(RecurrentConfig(hidden_size=7))
    model = language_model("gru")
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\)"):
        model(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"attention_mask must be \(1, 2\)"):
        model(np.array([[1, 2]]), attention_mask=np.ones((1, 3)))


# N-grams.


def test_probabilities_are_the_formulas():
    tokens = [0, 1, 2, 0, 1, 3, 0, 1, 2, 2, 1]
    model, pairs = NGram(4, order=2).fit(np.array(tokens)), list(itertools.pairwise(tokens))
    unique = set(pairs)
    ones, twos = (sum(pairs.count(p) == n for p in unique) for n in (1, 2))
    discount = ones / (ones + 2 * twos)
    before = [len({a for a, b in unique if b == w}) for w in range(4)]
    ones, twos = before.count(1), before.count(2)
    low = ones / (ones + 2 * twos)
    single = [(max(n - low, 0) + low * 4 / 4) / sum(before) for n in before]
    for h in range(4):
        follow = [pairs.count((h, w)) for w in range(4)]
        if not sum(follow):
            continue
        kinds = sum(n > 0 for n in follow)
        for w in range(4):
            expected = (max(follow[w] - discount, 0) + discount * kinds * single[w]) / sum(follow)
            assert model.probability([h], w) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_distributions_sum_to_one_and_are_the_probabilities(order):
    tokens = np.random.default_rng(0).integers(0, 7, 300)
    model = NGram(9, order).fit(tokens)
    for context in ([], [1], [1, 2, 3, 4, 5], [8, 8], tokens[:6].tolist()):
        found = model.distribution(context)
        assert found.sum() == pytest.approx(1)
        assert (found > 0).all()
        assert [model.probability(context, w) for w in range(9)] == pytest.approx(found.tolist())


def test_longer_contexts_predict_text_better():
    text = ("the cat sat on the mat and the dog sat on the log. " * 40).encode()
    tokens = np.frombuffer(text, np.uint8).astype(np.int64)
    losses = [NGram(256, order).fit(tokens[:1500]).loss(tokens[1500:]) for order in (1, 2, 4)]
    assert losses[0] > losses[1] > losses[2]
    written = NGram(256, 4).fit(tokens).generate(tokens[:5], 20, seed=0)
    assert written.shape == (25,)
    np.testing.assert_array_equal(written, NGram(256, 4).fit(tokens).generate(tokens[:5], 20, seed=0))


def test_an_n_gram_model_refuses_what_it_can_not_count():
    with pytest.raises(RuntimeError, match="call fit"):
        NGram(4).probability([0], 1)
    with pytest.raises(ValueError, match="2 tokens are fewer than the order, 3"):
        NGram(4, 3).fit(np.array([0, 1]))
    with pytest.raises(ValueError, match="tokens are 0 to 3; got 0 to 4"):
        NGram(4, 2).fit(np.array([0, 4]))
    with pytest.raises(ValueError, match="integers in one row"):
        NGram(4, 2).fit(np.array([[0, 1]]))
    with pytest.raises(ValueError, match="1 or more; got 0 and 5"):
        NGram(0)
