"""Batches made ready, on the device, while the ones before are worked on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from minilm import backend

__all__ = ["Prefetcher"]


class Prefetcher:
    """A loader's batches, in its order, made `ahead` of time by a thread and copied to `device` meanwhile.

    It stands in for the loader: `state()` is where the batches given out end, not those made ready, so that a
    checkpoint is the same with and without it. An error of the loader comes out where its batch would have.

    >>> import numpy as np
    >>> from minilm.data import BatchLoader
    >>> loader, twin = (BatchLoader(np.arange(100), batch_size=2, context=4, seed=1) for _ in range(2))
    >>> batches = Prefetcher(loader)
    >>> bool((batches.next_batch()[0] == twin.next_batch()[0]).all()), batches.state() == twin.state()
    (True, True)
    """

    def __init__(self, loader, device: str = "cpu", ahead: int = 2) -> None:
        self._loader, self._ahead = loader, ahead
        self._uploader = backend.Uploader(device, ahead)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="minilm-batches")
        self._ready: deque[Future] = deque()
        self._state = loader.state()

    def next_batch(self) -> tuple:
        """The next inputs and targets, on the device."""
        while len(self._ready) <= self._ahead:
            self._ready.append(self._thread.submit(self._load))
        try:
            token, state = self._ready.popleft().result()
        except BaseException:
            self._drop()  # what was made ready behind an error can't be given out in its place
            raise
        self._state = state
        return self._uploader.finish(token)

    def _load(self):
        batch = self._loader.next_batch()
        return self._uploader.start(batch), self._loader.state()

    def state(self) -> dict:
        """The loader's, after the last batch that was given out."""
        return self._state

    def set_state(self, state: dict) -> None:
        """Goes on from where `state()` was taken. ValueError as the loader's."""
        self._drop()
        self._loader.set_state(state)
        self._state = self._loader.state()

    def _drop(self) -> None:
        for future in self._ready:
            future.cancel()
        for future in self._ready:
            if not future.cancelled():
                future.exception()  # waits
        self._ready.clear()
        self._loader.set_state(self._state)

    def __iter__(self):
        while True:
            yield self.next_batch()
