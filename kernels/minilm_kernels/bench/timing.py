"""Times of calls that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

__all__ = ["HostTimer", "Timed", "alternate"]

# Long enough for the clock, and for the threads of whoever ran before to stop spinning and fall asleep.
SAMPLE, WARM_UP = 2e-3, 5e-3
SLOW = 10 * WARM_UP  # for a call that needs no warming up


class HostTimer:
    """Seconds of calls that return when they are done.

    A device's timer has the same two methods: it synchronises before and after, or records an event on either side of
    the calls and reads their distance.
    """

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
