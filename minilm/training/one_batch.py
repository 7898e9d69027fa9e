"""The same batch for ever: a model that can't learn one batch by heart has a fault."""

from __future__ import annotations

__all__ = ["OneBatch"]


class OneBatch:
    """Gives the first batch of a loader again and again, in place of the loader."""

    def __init__(self, batches) -> None:
        self.batch = batches.next_batch()
        self._state = batches.state()

    def next_batch(self):
        """The batch."""
        return self.batch

    def state(self) -> dict:
        """The loader's, after that batch."""
        return self._state

    def set_state(self, state: dict) -> None:
        """ValueError unless the state is of the same batch: there is nowhere to go."""
        if state != self._state:
            raise ValueError("the saved data position is not that of the one batch trained on; was it another mode?")
