"""dropout: the same elements from every implementation, and the random numbers behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import dropout, implementations
from minilm_kernels.chunks import SERIAL_BELOW
from minilm_kernels.dropout.reference import philox

CPU = [entry.name for entry in implementations("dropout", device="cpu")]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**64 - 1, 2**64 - 1), 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x85A308D3243F6A88, 0x0370734413198A2E),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(counter, key, expected):
    """The vectors that Random123, the authors' library, is checked against."""
    words = philox(np.array([counter[0]], np.uint64), counter[1], key)
    assert tuple(int(word[0]) for word in words) == expected


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(), (0,), (1,), (3,), (4,), (5,), (0, 5), (3, 7), (2, 3, 65), (1025,), (SERIAL_BELOW + 1,)]),
    p=st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
)
def test_drops_the_same_elements(implementation, shape, p, dtype, layout, seed, offset, laid_out):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    expected = dropout(x, p=p, seed=seed, offset=offset, implementation="reference")
    found = dropout(laid_out(x, layout), p=p, seed=seed, offset=offset, implementation=implementation)
    assert found.dtype == dtype
    assert found.shape == shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("implementation", CPU)
def test_the_share_dropped_and_the_scale(implementation):
    n = 400_000
    x = np.ones(n, np.float32)
    for p in (0.05, 0.5, 0.9):
        y = dropout(x, p=p, seed=7, implementation=implementation)
        assert abs((y == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
        np.testing.assert_array_equal(y[y != 0], np.float32(1 / (1 - p)))
    np.testing.assert_array_equal(dropout(x, p=0.0, seed=7, implementation=implementation), x)
    np.testing.assert_array_equal(dropout(x, p=1.0, seed=7, implementation=implementation), 0)


def test_neighbours_offsets_and_seeds_are_independent():
    n = 200_000
    drops = lambda **where: dropout(np.ones(n, np.float32), p=0.5, **where) == 0
    base = drops(seed=1, offset=0)
    others = [base[np.arange(n) - lag] for lag in (1, 2, 3, 4, 8, 32)]
    others += [drops(seed=1, offset=1), drops(seed=1, offset=2**32), drops(seed=2), drops(seed=1 + 2**32)]
    for other in others:
        assert abs((base == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_words_are_uniform():
    words = np.concatenate(philox(np.arange(250_000, dtype=np.uint64), 3, 5))
    for shift in (0, 8, 16, 24):
        counts = np.bincount((words >> np.uint64(shift)).astype(np.int64) & 255, minlength=256)
        chi_square = ((counts - words.size / 256) ** 2 / (words.size / 256)).sum()
        assert 160 < chi_square < 370  # 255 degrees of freedom: outside once in a million


@pytest.mark.parametrize("implementation", CPU)
def test_nan_is_kept_where_it_is_kept(implementation):
    x = np.full(1000, np.nan, np.float32)
    y = dropout(x, p=0.5, seed=0, implementation=implementation)
    np.testing.assert_array_equal(np.isnan(y), dropout(np.ones_like(x), p=0.5, seed=0) != 0)


def test_same_bits_on_any_number_of_threads(same_bits):
    x = np.ones(2 * SERIAL_BELOW + 3, np.float32)
    same_bits(lambda: dropout(x, p=0.3, seed=3))


def test_errors_say_what_to_do():
    x = np.zeros(3, np.float32)
    with pytest.raises(
        ValueError, match=r"p is 1.5; expected the probability, in \[0, 1\], that an element is dropped"
    ):
        dropout(x, p=1.5, seed=0)
    with pytest.raises(ValueError, match=r"p is nan; expected the probability"):
        dropout(x, p=float("nan"), seed=0)
    with pytest.raises(ValueError, match=r"seed is -1; expected an integer in \[0, 2\*\*64\)"):
        dropout(x, p=0.5, seed=-1)
    with pytest.raises(ValueError, match=r"offset is 18446744073709551616; expected an integer in \[0, 2\*\*64\)"):
        dropout(x, p=0.5, seed=0, offset=2**64)
    with pytest.raises(TypeError, match="x is int64; expected floating-point numbers"):
        dropout(np.arange(3), p=0.5, seed=0)


@pytest.mark.parametrize("place", ["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_seed_on_the_device(place, request):
    if place == "stand-in":
        request.getfixturevalue("cuda_standin")
    import cupy

    x = np.ones((3, 41), np.float32)
    seed = cupy.asarray(np.array([3, 2**63 + 5], np.uint64))
    for i, number in enumerate((3, 2**63 + 5)):
        y = dropout(cupy.asarray(x), p=0.4, seed=seed[i : i + 1].reshape(()))
        np.testing.assert_array_equal(y.get(), dropout(x, p=0.4, seed=number))
    with pytest.raises(TypeError, match=r"seed is an array of uint64 \(2,\); expected one uint64, without axes"):
        dropout(cupy.asarray(x), p=0.4, seed=seed)
