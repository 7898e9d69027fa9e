"""The thread that computes: it takes requests from any thread, and steps while there are any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from minilm.generation.batching import ContinuousBatch, Request

__all__ = ["Closed", "Engine", "QueueFull"]


class QueueFull(Exception):
    """There are as many requests as are computed at once and may wait; `args[0]` is how many answers that are."""


class Closed(Exception):
    """The engine was asked to end, and takes nothing."""


class Engine:
    """Runs a batch on a thread of its own.

    `submit` and `cancel` may be called from any thread; listeners are called from the engine's. `queue` is how many
    answers may wait beside those that are computed. `close` lets what is running end for some seconds, and refuses what
    waits. Used as `with Engine(batch, queue=64) as engine:`, or with `start` and `close`.
    """

    def __init__(self, batch: ContinuousBatch, queue: int = 128, report: Callable[[Exception], None] = print) -> None:
        if queue < 0:
            raise ValueError(f"queue is how many answers may wait, 0 or more; got {queue}")
        self.batch, self.queue, self.report = batch, queue, report
        self._changed = threading.Condition()
        self._arrived: list[Request] = []
        self._cancelled: list[Request] = []
        self._open, self._deadline = True, None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begins to compute."""
        self._thread.start()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.close(0.0)

    @property
    def load(self) -> int:
        """How many answers are computed or wait."""
        with self._changed:
            return self.batch.load + sum(len(request.listeners) for request in self._arrived)

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes all of the requests or none: by QueueFull, Closed, or what `ContinuousBatch.check` raises."""
        for request in requests:
            self.batch.check(request)
        with self._changed:
            if not self._open:
                raise Closed
            load, new = self.load, sum(len(request.listeners) for request in requests)
            if load + new > self.batch.n_rows + self.queue:
                raise QueueFull(load)
            self._arrived.extend(requests)
            self._changed.notify()

    def cancel(self, requests: Sequence[Request]) -> None:
        """Ends requests that nobody waits for any more, before the next step; done ones are left as they are."""
        with self._changed:
            self._cancelled.extend(requests)
            self._changed.notify()

    def close(self, grace: float, wait: bool = True) -> None:
        """Ends: running answers have `grace` seconds to come to their end."""
        with self._changed:
            self._open = False
            self._deadline = min(time.monotonic() + grace, self._deadline or float("inf"))
            self._changed.notify()
        if wait and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._take_up():
            try:
                if self.batch.busy:  # else it was woken to forget somebody
                    self.batch.step()
            except Exception as error:  # nobody knows whose request it was
                self.batch.fail(error)
                self.report(error)
        self.batch.fail(Closed())

    def _take_up(self) -> bool:
        """Waits for something to do, and brings the batch up to date; False at the end."""
        with self._changed:
            while self._open and not (self._arrived or self._cancelled or self.batch.busy):
                self._changed.wait()
            arrived, self._arrived = self._arrived, []
            cancelled, self._cancelled = self._cancelled, []
            for request in arrived:
                self.batch.add(request)
            for request in cancelled:
                self.batch.cancel(request)
            if not self._open:
                self.batch.refuse_waiting(Closed())
            return self._open or (self.batch.busy and time.monotonic() < self._deadline)
