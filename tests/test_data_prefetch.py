"""Batches made ahead of time: the same ones, and a state that knows only of those given out."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import backend
from minilm.data import BatchLoader, Prefetcher


def loader(**settings) -> BatchLoader:
    return BatchLoader(np.arange(200), batch_size=3, context=8, seed=4, **settings)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request) -> str:
    """Where the batches go."""
    return request.param


def test_the_same_batches_and_states(place):
    plain, ahead = loader(), Prefetcher(loader(), place)
    assert ahead.state() == plain.state()
    for _ in range(20):
        for mine, theirs in zip(ahead.next_batch(), plain.next_batch()):
            assert backend.device_of(mine) == place
            np.testing.assert_array_equal(backend.to_numpy(mine), theirs)
        assert ahead.state() == plain.state()


def test_going_back_and_on(place):
    ahead = Prefetcher(loader(), place, ahead=3)
    for _ in range(4):
        ahead.next_batch()
    state = ahead.state()
    following = [backend.to_numpy(ahead.next_batch()[0]).copy() for _ in range(6)]
    ahead.set_state(state)
    for expected in following:
        np.testing.assert_array_equal(backend.to_numpy(ahead.next_batch()[0]), expected)
    with pytest.raises(ValueError, match="the saved batches had context=9"):
        ahead.set_state({**state, "context": 9})


class Failing(BatchLoader):
    """A loader whose third batch can't be read at first."""

    failed = False

    def next_batch(self):
        if self.position == 6 and not self.failed:
            self.failed = True
            raise OSError("the disk is gone")
        return super().next_batch()


def test_an_error_comes_where_its_batch_would_and_the_batch_is_not_lost():
    ahead = Prefetcher(Failing(np.arange(200), batch_size=3, context=8, seed=4))
    plain = loader()
    for _ in range(2):
        np.testing.assert_array_equal(ahead.next_batch()[0], plain.next_batch()[0])
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.next_batch()
    assert ahead.state() == plain.state()
    np.testing.assert_array_equal(ahead.next_batch()[0], plain.next_batch()[0])


@pytest.mark.gpu
def test_copies_of_other_shapes_do_not_mix():
    uploader = backend.Uploader("cuda", ahead=1)
    for shape in ((3, 4), (3, 4), (5, 2), (3, 4), (1, 1)):
        array = np.random.default_rng(0).integers(0, 9, shape)
        (there,) = uploader.finish(uploader.start((array,)))
        np.testing.assert_array_equal(there.get(), array)
