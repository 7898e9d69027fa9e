"""Times of calls that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

__all__ = ["DeviceTimer", "HostTimer", "Timed", "alternate"]

# Long enough for the clock, and for the threads of whoever ran before to stop spinning and fall asleep.
SAMPLE, WARM_UP = 2e-3, 5e-3
SLOW = 10 * WARM_UP  # for a call that needs no warming up
MOST_FLUSHES = 50


class HostTimer:
    """Seconds of calls that return when they are done."""

    def warm_up(self, function: Callable) -> float:
        """Calls until `WARM_UP` has passed, at least once; returns the seconds that the last call took."""
        begin = time.perf_counter()
        while True:
            start = time.perf_counter()
            function()
            end = time.perf_counter()
            if end - begin >= WARM_UP:
                return end - start

    def seconds(self, function: Callable, calls: int) -> float:
        """The mean time of `calls` calls in a row."""
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls


class DeviceTimer(HostTimer):
    """Seconds that a device takes for calls that return at once: the distance of two events on either side of each.

    `flush()` queues work that overwrites the device's cache. While the device is at it, the host gets ahead: it queues
    the event, the call and the other event, so that the distance has no waiting for the host in it. `record()` queues
    an event and returns it; `elapsed(start, stop)` waits for both and gives the seconds between them.
    """

    def __init__(self, *, flush: Callable, record: Callable, elapsed: Callable, synchronize: Callable) -> None:
        self._flush, self._record, self._elapsed, self._synchronize = flush, record, elapsed, synchronize
        self._seconds_of_flush = 0.0
        self._flushes = 1

    def warm_up(self, function: Callable) -> float:
        begin = time.perf_counter()
        while True:
            self._synchronize()
            start = time.perf_counter()
            function()
            queued = time.perf_counter() - start  # by the host, which here does not wait for the device
            self._synchronize()
            if time.perf_counter() - begin >= WARM_UP:
                break
        self._seconds_of_flush = self._seconds_of_flush or self._distance(self._flush)
        self._flushes = 1 + min(MOST_FLUSHES, int(2 * queued / max(self._seconds_of_flush, 1e-6)))
        return self.seconds(function, 1)

    def seconds(self, function: Callable, calls: int) -> float:
        events = []
        for _ in range(calls):
            for _ in range(self._flushes):
                self._flush()
            start = self._record()
            function()
            events.append((start, self._record()))
        return sum(self._elapsed(start, stop) for start, stop in events) / calls

    def _distance(self, function: Callable) -> float:
        function()
        start = self._record()
        function()
        return self._elapsed(start, self._record())


@dataclass
class Timed:
    """A function that takes turns with others, and the seconds that its calls took: a sample a round, NaN if none."""

    function: Callable
    context: Callable = nullcontext  # is entered around the calls, and not timed
    budget: float = float("inf")  # seconds, after which it sits out the remaining rounds
    seconds: list[float] = field(default_factory=list)
    calls: int = 0  # in a row for one sample
    spent: float = 0.0

    def expect(self, seconds: float) -> None:
        """Tells how long a call took in passing: if that is beyond the budget, it is the one sample there will be."""
        if seconds > self.budget:
            self.seconds, self.calls = [seconds], 1
        elif seconds > SLOW:
            self.calls = 1

    @property
    def samples(self) -> np.ndarray:
        """The samples that were taken."""
        return np.array([second for second in self.seconds if second == second])


def alternate(contenders: list[Timed], rounds: int, timer: HostTimer | None = None) -> None:
    """Times all contenders `rounds` times in turn, whoever began last time coming last, so that drift cancels.

    Who would go beyond its budget sits out the remaining rounds, after one sample at least.
    """
    timer = timer or HostTimer()
    taking_turns = [contender for contender in contenders if not contender.seconds]
    for number in range(rounds):
        turn = number % max(len(taking_turns), 1)
        for contender in taking_turns[turn:] + taking_turns[:turn]:
            if number and contender.spent * (1 + 1 / len(contender.samples)) > contender.budget:
                continue
            start = time.perf_counter()
            with contender.context():
                slow = contender.calls == 1 and (number == 0 or contender.samples[-1] > SLOW)
                if not slow:
                    last = timer.warm_up(contender.function)
                    contender.calls = contender.calls or max(1, round(SAMPLE / max(last, 1e-9)))
                contender.seconds.append(timer.seconds(contender.function, contender.calls))
            contender.spent += time.perf_counter() - start
        for contender in contenders:
            contender.seconds += [float("nan")] * (number + 1 - len(contender.seconds))
