"""Filters by a sum of probabilities: as by their definition, with everything sorted, whatever the vocabulary's size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.generation.nucleus import top_p_filter, typical_p_filter
from minilm.generation.processors import log_probabilities
from minilm.generation.sampling import sample


def top_p(scores, p):
    order = np.argsort(scores, kind="stable")  # the least likely first
    up_to = np.cumsum(np.exp(log_probabilities(scores))[order])
    kept = np.ones(scores.size, bool)
    kept[order[:-1]] = up_to[:-1] > 1 - p
    return np.where(kept, scores, -np.inf)


def typical_p(scores, p):
    logp = log_probabilities(scores)
    probability = np.exp(logp)
    oddness = np.abs(-logp + (np.where(probability > 0, logp, 0) * probability).sum())
    order = np.argsort(oddness, kind="stable")
    last = min(int((np.cumsum(probability[order]) < p).sum()), scores.size - 1)
    return np.where(oddness > oddness[order[last]], -np.inf, scores)


@pytest.mark.parametrize(("filter", "definition"), [(top_p_filter, top_p), (typical_p_filter, typical_p)])
@settings(max_examples=60, deadline=None)
@given(
    vocabulary=st.sampled_from([1, 2, 7, 255, 256, 257, 3000, 20_000]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 4.0, 30.0]),
    p=st.floats(1e-6, 0.9999),
    kind=st.sampled_from(["distinct", "ties", "mostly filtered out", "one left"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_as_by_its_definition(filter, definition, vocabulary, spread, p, kind, dtype, seed):
    rng = np.random.default_rng(seed)
    scores = (spread * rng.standard_normal((2, vocabulary))).astype(dtype)
    if kind == "ties":
        scores = np.round(scores)
    elif kind != "distinct":
        out = rng.random(scores.shape) < 0.98 if kind == "mostly filtered out" else np.ones(scores.shape, bool)
        out[:, rng.integers(vocabulary)] = False
        scores[out] = -np.inf
    before = scores.copy()
    found = filter([], scores, p)
    assert found.dtype == dtype
    np.testing.assert_array_equal(scores, before)
    for row, filtered in zip(scores, found):
        expected = definition(row, p)
        differ = filtered != expected
        if differ.any():  # sums that are p but for their rounding may go either way, and take equal tokens along
            assert spread == 0 or len(np.unique(row[differ])) <= 2
            chance = np.exp(log_probabilities(row))
            kept = np.isfinite(filtered)
            assert abs(chance[kept].sum() - chance[np.isfinite(expected)].sum()) <= chance[differ].sum() + 1e-12


def test_a_flat_distribution_sorts_everything():
    scores = np.zeros((1, 5000), np.float32)
    assert np.isfinite(top_p_filter([], scores, 0.5)).sum() == 2500
    assert np.isfinite(typical_p_filter([], scores, 0.5)).all()


def test_a_row_without_tokens_stays_without():
    scores = np.array([[-np.inf] * 3, [0, -np.inf, 1]], np.float32)
    for filter in (top_p_filter, typical_p_filter):
        assert np.isfinite(filter([], scores, 0.99)).tolist() == [[False] * 3, [True, False, True]]
    with pytest.raises(ValueError, match="no token can come next"):
        sample(scores, np.array([0.5, 0.5]))


def test_tokens_without_a_chance_are_never_drawn():
    scores = np.array([[0, -2000, -np.inf], [-2000, 0, -2000]])
    for uniform, expected in ((0.0, [0, 1]), (np.nextafter(1.0, 0.0), [0, 1])):
        assert sample(scores, np.full(2, uniform)).tolist() == expected
