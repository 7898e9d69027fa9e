"""Seeded random streams whose state can be saved and restored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from .arrays import as_array, resolve_dtype, to_device

__all__ = ["Draws", "Generator", "Seeds", "default_generator", "manual_seed"]


class Generator:
    """A stream of random numbers, the same for the same seed on every device.

    The stream itself is NumPy's PCG64 on the host, and its state is a small dict of ints that JSON can hold. Arrays
    are drawn on the host and moved, so that a model is initialised alike everywhere; what is drawn in every training
    step (dropout) takes one `seed64()` and lets a counter-based generator on the device do the rest.

    >>> stream = Generator(0)
    >>> saved = stream.state()
    >>> first = stream.normal((2,))
    >>> stream.set_state(saved)
    >>> bool((stream.normal((2,)) == first).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Starts the stream anew from `seed`; ValueError for a negative one."""
        if seed < 0:
            raise ValueError(f"seed is {seed}; expected 0 or more")
        self._stream = np.random.Generator(np.random.PCG64(seed))

    def normal(self, shape, std: float = 1.0, mean: float = 0.0, dtype="float32", device: str = "cpu"):
        """Normal numbers of the given mean and standard deviation."""
        values = _draw(lambda: self._stream.standard_normal(shape, dtype=_drawn(dtype)))
        return to_device(as_array(values * std + mean, dtype), device)

    def uniform(self, shape, low: float = 0.0, high: float = 1.0, dtype="float32", device: str = "cpu"):
        """Numbers spread evenly over [low, high)."""
        values = _draw(lambda: self._stream.random(shape, dtype=_drawn(dtype)))
        return to_device(as_array(values * (high - low) + low, dtype), device)

    def integers(self, low: int, high: int, shape=None, device: str = "cpu"):
        """int64 numbers spread evenly over low..high-1."""
        return to_device(np.asarray(_draw(lambda: self._stream.integers(low, high, shape))), device)

    def permutation(self, n: int) -> np.ndarray:
        """The numbers 0..n-1 in random order."""
        return _draw(lambda: self._stream.permutation(n))

    def seed64(self) -> int:
        """A 64-bit number to seed a counter-based generator with."""
        return _draw(lambda: int(self._stream.integers(0, 2**64, dtype=np.uint64)), True)

    def state(self) -> dict:
        """All there is to know to go on from here; JSON can hold it (integers as strings: some exceed 64 bits)."""
        state = self._stream.bit_generator.state
        inner = {key: str(value) for key, value in state["state"].items()}
        return {
            "bit_generator": "PCG64",
            "state": inner,
            "has_uint32": state["has_uint32"],
            "uinteger": state["uinteger"],
        }

    def set_state(self, state: dict) -> None:
        """Goes on from a state that `state()` gave."""
        if state.get("bit_generator") != "PCG64":
            raise ValueError(f"expected the state of a PCG64 stream, got {state.get('bit_generator')!r}")
        inner = {key: int(value) for key, value in state["state"].items()}
        self._stream.bit_generator.state = {**state, "state": inner}


class Draws:
    """Takes down what all streams give inside `recording()`, and gives it again, in that order, inside `again()`.

    So a function that is run a second time gets the same numbers, whichever streams it draws from, and these stand
    where they stood. Of this thread only.

    >>> stream, draws = Generator(0), Draws()
    >>> with draws.recording():
    ...     first = stream.seed64()
    >>> with draws.again():
    ...     stream.seed64() == first
    True
    """

    def __init__(self) -> None:
        self._values: list = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A `with` block; draws are recorded."""
        outer = _active.source

        def record(draw, is_seed):
            value = draw() if outer is None else outer(draw, is_seed)
            self._values.append(value)
            return value

        with _drawing_from(record):
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """A `with` block; draws are those recorded. RuntimeError where there are more of them than were recorded."""
        values = iter(self._values)

        def give(*_):
            for value in values:
                return value
            raise RuntimeError(
                f"a function that is computed again drew more random numbers than the {len(self._values)} of the first "
                "time; it has to do the same both times"
            )

        with _drawing_from(give):
            yield


class Seeds:
    """The seeds that a function draws from its streams, for calls in which it reads them from an array instead.

    A first call inside `noting()` shows which streams are asked; `fresh()` then draws what they would give at the next
    call, and inside `given(array)` the function gets the elements of `array` (uint64, 0-d, on any device): a recorded
    graph has other dropout at each replay, and the same as a function that draws itself.

    >>> stream, twin, seeds = Generator(0), Generator(0), Seeds()
    >>> with seeds.noting():
    ...     first = stream.seed64(), stream.seed64()
    >>> with seeds.given(seeds.fresh()):
    ...     again = int(stream.seed64()), int(stream.seed64())
    >>> (*first, *again) == tuple(twin.seed64() for _ in range(4))
    True
    """

    def __init__(self) -> None:
        self._draws: list[Callable] = []

    def __len__(self) -> int:
        return len(self._draws)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A `with` block; who draws is noted. RuntimeError for anything drawn that is no seed."""
        self._draws = []

        def note(draw, is_seed):
            _refuse_all_but_seeds(is_seed)
            self._draws.append(draw)
            return draw()

        with _drawing_from(note):
            yield

    def fresh(self) -> np.ndarray:
        """The next seeds, in the order in which they are asked for."""
        return np.array([draw() for draw in self._draws], np.uint64)

    @contextmanager
    def given(self, array) -> Iterator[None]:
        """A `with` block; seeds are the elements of `array`. RuntimeError if more of them are drawn than were noted."""
        places = iter(range(len(self)))

        def give(_, is_seed):
            _refuse_all_but_seeds(is_seed)
            for place in places:
                return array[place : place + 1].reshape(())
            raise RuntimeError(f"more random numbers were drawn than the {len(self)} seeds of the first call")

        with _drawing_from(give):
            yield


def _refuse_all_but_seeds(is_seed: bool) -> None:
    if not is_seed:
        raise RuntimeError("random numbers were drawn on the host, where only seeds for the device can be given anew")


class _Active(threading.local):
    source: Callable | None = None  # given a function that draws, it returns what was drawn; None: the function does


_active = _Active()


def _draw(draw: Callable, is_seed: bool = False):
    return draw() if _active.source is None else _active.source(draw, is_seed)


@contextmanager
def _drawing_from(source: Callable) -> Iterator[None]:
    outer, _active.source = _active.source, source
    try:
        yield
    finally:
        _active.source = outer


def _drawn(dtype):
    """The dtype that numbers are drawn in: float64 for float64, else float32, rounded from there."""
    return np.float64 if resolve_dtype(dtype) == np.float64 else np.float32


default_generator = Generator(0)


def manual_seed(seed: int) -> None:
    """Starts the default stream, which layers and dropout draw from when given no other, anew from `seed`.

    >>> manual_seed(1)
    >>> first = default_generator.seed64()
    >>> manual_seed(1)
    >>> default_generator.seed64() == first
    True
    """
    default_generator.seed(seed)
