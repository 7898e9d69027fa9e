"""Batches: each window once an epoch, the same ones after a resume, and evaluation on every token once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import BatchLoader, DataError, TokenFile, TokenFileWriter, evaluation_batches
from minilm.data.shuffle import mix, permute


def batches(loader, count):
    return [loader.next_batch() for _ in range(count)]


def equal(left, right):
    return len(left) == len(right) and all((a == b).all() for x, y in zip(left, right) for a, b in zip(x, y))


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(n, key):
    image = permute(np.arange(n), n, key)
    assert image.dtype == np.int64
    assert sorted(image.tolist()) == list(range(n))


def test_permute_of_very_many():
    n = 10**15 + 7
    image = permute(np.arange(100_000), n, 5)
    assert len(np.unique(image)) == 100_000
    assert 0 <= image.min() <= image.max() < n
    assert 0.49 < (image / n).mean() < 0.51


@pytest.mark.parametrize("n", [2, 3, 7, 24])
def test_permutations_are_as_random_as_they_should_be(n):
    """Over many keys every element goes everywhere equally often, and neighbours land independently of one another."""
    images = np.stack([permute(np.arange(n), n, mix(1, key)) for key in range(3000)])
    counts = np.stack([np.bincount(images[:, i], minlength=n) for i in range(n)])
    deviation = (counts - 3000 / n) / np.sqrt(3000 / n * (1 - 1 / n))
    assert np.abs(deviation).max() < 5
    assert abs(np.mean(images[:, 1] > images[:, 0]) - 0.5) < 0.05


def test_the_order_is_the_same_for_ever():
    """A checkpoint of today goes on with the same batches in a later version: these numbers may not change."""
    assert mix(0, 1) == mix(0, 1) != mix(1, 0)
    assert permute(np.arange(10), 10, 42).tolist() == [8, 5, 4, 6, 1, 3, 7, 2, 9, 0]
    loader = BatchLoader(np.arange(1000), 4, 16, seed=3)
    assert loader.next_batch()[0][:, 0].tolist() == [873, 713, 505, 889]


@settings(deadline=None)
@given(count=st.integers(2, 400), batch_size=st.integers(1, 9), context=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_every_window_is_seen_once_an_epoch(count, batch_size, context, seed):
    if count < context + 1:
        return
    loader = BatchLoader(np.arange(count), batch_size, context, seed=seed)
    windows = loader.windows_per_epoch
    assert windows >= max(1, (count - 1) // context - 1)
    rows = np.concatenate([inputs for inputs, _ in batches(loader, -(-3 * windows // batch_size))])[: 3 * windows]
    for epoch in rows.reshape(3, windows, context):
        starts = np.sort(epoch[:, 0])
        assert (np.diff(starts) == context).all()
        assert 0 <= starts[0] < context
        assert starts[-1] + context < count
        assert (epoch == epoch[:, :1] + np.arange(context)).all()


def test_targets_are_the_inputs_one_further():
    tokens = np.random.default_rng(0).integers(0, 50, 500).astype(np.uint16)
    inputs, targets = BatchLoader(tokens, 3, 20).next_batch()
    assert inputs.shape == targets.shape == (3, 20)
    assert inputs.dtype == targets.dtype == np.int64
    assert inputs.flags.c_contiguous
    assert targets.flags.c_contiguous
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    text = tokens.tolist()
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert any(text[i : i + 21] == [*row, target[-1]] for i in range(480))


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        loader = BatchLoader(np.arange(2000), 10, 10, seed=seed)
        loader.set_state({**loader.state(), "position": epoch * loader.windows_per_epoch})
        return loader.next_batch()[0][:, 0].tolist()

    orders = [order(0, 0), order(0, 1), order(0, 2), order(1, 0), order(1, 1)]
    assert len({tuple(each) for each in orders}) == 5
    assert len({each[0] % 10 for each in orders}) > 1  # the cut differs too, not only the order


@settings(deadline=None, max_examples=40)
@given(before=st.integers(0, 700), batch_size=st.integers(1, 7), shuffle=st.booleans())
def test_resumed_is_uninterrupted(before, batch_size, shuffle):
    tokens = np.arange(1000)
    whole = BatchLoader(tokens, batch_size, 8, seed=5, shuffle=shuffle)
    for _ in range(before):
        whole.next_batch()
    state = json.loads(json.dumps(whole.state()))
    resumed = BatchLoader(tokens, batch_size, 8, seed=5, shuffle=shuffle)
    resumed.next_batch()
    resumed.set_state(state)
    assert equal(batches(whole, 5), batches(resumed, 5))
    assert resumed.state() == whole.state()
    assert resumed.epoch == (before + 5) * batch_size / whole.windows_per_epoch


def test_working_ahead_changes_nothing(monkeypatch):
    long = batches(BatchLoader(np.arange(500), 7, 8), 60)
    monkeypatch.setattr("minilm.data.loader._WINDOWS_AHEAD", 1)
    assert equal(long, batches(BatchLoader(np.arange(500), 7, 8), 60))


def test_position_may_be_resumed_with_another_batch_size():
    small, large = BatchLoader(np.arange(500), 3, 8), BatchLoader(np.arange(500), 6, 8)
    batches(small, 4)
    large.set_state(small.state())
    first, second = batches(small, 2)
    assert (large.next_batch()[0] == np.concatenate([first[0], second[0]])).all()


def test_ranks_share_out_the_same_batches():
    whole = BatchLoader(np.arange(500), 6, 8, seed=1)
    ranks = [BatchLoader(np.arange(500), 2, 8, seed=1, rank=rank, world_size=3) for rank in range(3)]
    for _ in range(30):
        parts = [loader.next_batch()[0] for loader in ranks]
        assert (np.concatenate(parts) == whole.next_batch()[0]).all()
    assert ranks[1].state() == whole.state()
    assert ranks[0].tokens_per_batch == whole.tokens_per_batch == 48


def test_in_order_without_shuffling():
    loader = BatchLoader(np.arange(33), 2, 8, shuffle=False)
    assert loader.windows_per_epoch == 4
    assert [int(row[0]) for inputs, _ in batches(loader, 3) for row in inputs] == [0, 8, 16, 24, 0, 8]


def test_a_loader_is_an_endless_iterator():
    loader = BatchLoader(np.arange(33), 2, 8)
    assert equal([batch for _, batch in zip(range(9), loader)], batches(BatchLoader(np.arange(33), 2, 8), 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "saved batches had seed=1, these have seed=0"),
        ({"context": 9}, "context=9"),
        ({"tokens": 499}, "tokens=499"),
        ({"shuffle": False}, "shuffle=False"),
        ({"version": 2}, "version=2"),
        ({"checksum": 5}, None),
        ({"position": -1}, "count of windows, not -1"),
        ({"position": 1.0}, "count of windows, not 1.0"),
    ],
)
def test_the_state_of_other_batches_is_refused(change, message):
    loader = BatchLoader(np.arange(500), 3, 8)
    state = {**loader.state(), **change}
    if message is None:  # an array has no checksum, so a file's can't be held against it
        loader.set_state(state)
    else:
        with pytest.raises(ValueError, match=message):
            loader.set_state(state)
    assert loader.position == 0
    with pytest.raises(ValueError, match="not the state of a BatchLoader: it has no checksum, context"):
        loader.set_state({"position": 3})


def test_a_token_file_is_known_by_its_checksum(tmp_path):
    files = []
    for name, first in (("a", 1), ("b", 2)):
        with TokenFileWriter(tmp_path / name, vocab_size=300, tokenizer_digest="00" * 32) as writer:
            writer.write(np.r_[first, np.arange(200)])
        files.append(TokenFile(tmp_path / name))
    loader = BatchLoader(files[0], 2, 8)
    assert equal(batches(loader, 3), batches(BatchLoader(files[0].tokens, 2, 8), 3))
    with pytest.raises(ValueError, match="saved batches had checksum="):
        BatchLoader(files[1], 2, 8).set_state(loader.state())


def test_a_corpus_too_short_says_what_is_needed():
    with pytest.raises(
        DataError, match=r"context=64 needs 65 tokens, .* there are 40: lower context to at most 39, or"
    ):
        BatchLoader(np.arange(40), 1, 64)
    with pytest.raises(DataError, match="there are 1: give more text"):
        BatchLoader(np.arange(1), 1, 64)
    assert BatchLoader(np.arange(65), 1, 64).next_batch()[1][0, -1] == 64


def test_wrong_arguments():
    for batch_size, context, name in ((0, 8, "batch_size"), (2, 0, "context")):
        for make in (BatchLoader, evaluation_batches):
            with pytest.raises(ValueError, match=f"{name} is at least 1, not 0"):
                make(np.arange(100), batch_size, context)
    for rank, world_size in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="rank goes from 0"):
            BatchLoader(np.arange(100), 2, 8, rank=rank, world_size=world_size)
    for tokens in (np.zeros(100), np.zeros((10, 10), int)):
        with pytest.raises(ValueError, match="flat integer array"):
            BatchLoader(tokens, 2, 8)


@settings(deadline=None)
@given(count=st.integers(2, 300), batch_size=st.integers(1, 9), context=st.integers(1, 50))
def test_evaluation_has_every_token_as_a_target_once(count, batch_size, context):
    found = list(evaluation_batches(np.arange(count), batch_size, context))
    assert np.concatenate([targets.ravel() for _, targets in found]).tolist() == list(range(1, count))
    assert np.concatenate([inputs.ravel() for inputs, _ in found]).tolist() == list(range(count - 1))
    for inputs, targets in found:
        assert inputs.shape == targets.shape
        assert 1 <= inputs.shape[0] <= batch_size
        assert 1 <= inputs.shape[1] <= context


def test_evaluation_of_nothing_is_an_error_before_anything_starts():
    with pytest.raises(DataError, match="at least 2 tokens, and there is 1"):
        evaluation_batches(np.arange(1), 2, 8)
