"""Batches of token windows: training's in a shuffled order that a seed and a position fix, evaluation's in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minilm.data.errors import DataError
from minilm.data.shuffle import mix, permute
from minilm.data.token_file import TokenFile

__all__ = ["BatchLoader", "evaluation_batches"]

_STATE_VERSION = 1
_WINDOWS_AHEAD = 4096


class BatchLoader:
    """Endless training batches: inputs and targets, int64, shape (batch_size, context), targets one token further.

    An epoch cuts the tokens into windows that do not overlap, from a random first token, and visits each once, in
    random order; the next epoch cuts and orders them anew. Which windows batch n holds depends on nothing but the seed
    and n (and the settings), so a position of one integer is all that a checkpoint needs. A batch may reach over the
    end of an epoch: all have batch_size rows. Memory does not grow with the corpus.

    With `world_size` processes each takes its own rows, by `rank`, of global batches of batch_size * world_size.

    `tokens` is a TokenFile or an integer array (N,). DataError if N < context + 1.

    >>> loader = BatchLoader(np.arange(100), batch_size=2, context=4, seed=1)
    >>> inputs, targets = loader.next_batch()
    >>> inputs.shape, bool((targets == inputs + 1).all())
    ((2, 4), True)
    >>> state = loader.state()
    >>> following = loader.next_batch()
    >>> loader.set_state(state)
    >>> bool((loader.next_batch()[0] == following[0]).all())
    True
    """

    def __init__(
        self,
        tokens,
        batch_size: int,
        context: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._tokens, self._checksum = _array(tokens)
        _check_sizes(batch_size, context)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank goes from 0 to world_size - 1; got rank={rank} with world_size={world_size}")
        count = len(self._tokens)
        if count < context + 1:
            lower = f"lower context to at most {count - 1}, or " if count > 1 else ""
            raise DataError(
                f"a window of context={context} needs {context + 1} tokens, one more for the last target, and there "
                f"are {count}: {lower}give more text"
            )
        self.batch_size, self.context, self.seed, self.shuffle = int(batch_size), int(context), int(seed), bool(shuffle)
        self.rank, self.world_size = rank, world_size
        # One window fewer than would fit leaves room for the first token to be any of the first `context`; a corpus of
        # less than two windows gives the room that it has.
        self.windows_per_epoch = max(1, (count - context) // context) if shuffle else (count - 1) // context
        slack = count - 1 - self.windows_per_epoch * context
        self._offsets = min(context, slack + 1) if shuffle else 1
        self.position = 0
        self._ahead = 0, np.empty(0, dtype=np.int64)  # starts worked out already, from this window on

    @property
    def epoch(self) -> float:
        """How many times the windows have been gone through, as a fraction."""
        return self.position / self.windows_per_epoch

    @property
    def tokens_per_batch(self) -> int:
        """Targets in one global batch, over all processes."""
        return self.batch_size * self.world_size * self.context

    def next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """The next inputs and targets, and the position moves on."""
        first = self.position + self.rank * self.batch_size
        starts = self._window_starts(first, self.batch_size)
        self.position += self.batch_size * self.world_size
        return _gather(self._tokens, starts, self.context)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield self.next_batch()

    def _window_starts(self, first: int, count: int) -> np.ndarray:
        """The first token of `count` windows from number `first` on, counted over all epochs.

        Worked out some thousand at a time: NumPy's cost a call would else be most of a small batch's.
        """
        base, starts = self._ahead
        if not base <= first <= first + count <= base + len(starts):
            ahead = max(count, min(_WINDOWS_AHEAD, self.windows_per_epoch))
            base, starts = first, self._permuted(np.arange(first, first + ahead))
            self._ahead = base, starts
        return starts[first - base : first - base + count]

    def _permuted(self, windows: np.ndarray) -> np.ndarray:
        epochs, indices = np.divmod(windows, self.windows_per_epoch)
        if not self.shuffle:
            return indices * self.context
        starts = np.empty_like(indices)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            order, offset = mix(self.seed, int(epoch), 0), mix(self.seed, int(epoch), 1) % self._offsets
            starts[rows] = permute(indices[rows], self.windows_per_epoch, order) * self.context + offset
        return starts

    def state(self) -> dict:
        """Where the loader stands, as plain JSON: for a checkpoint."""
        return {
            "version": _STATE_VERSION,
            "position": self.position,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "context": self.context,
            "tokens": len(self._tokens),
            "checksum": self._checksum,
        }

    def set_state(self, state: dict) -> None:
        """Goes on from where `state()` was taken, to the same batches bit for bit.

        `batch_size` and `world_size` may differ (the position counts windows); anything else that would change which
        windows come next is a ValueError.
        """
        own = self.state()
        missing = own.keys() - state.keys()
        if missing:
            raise ValueError(f"this is not the state of a BatchLoader: it has no {', '.join(sorted(missing))}")
        for name in own.keys() - {"position"}:
            # An array in memory has no checksum to compare.
            if state[name] != own[name] and not (name == "checksum" and None in (state[name], own[name])):
                raise ValueError(
                    f"the saved batches had {name}={state[name]}, these have {name}={own[name]}: they would not go on "
                    f"where they stopped; use the same data and settings, or start from the first batch"
                )
        position = state["position"]
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise ValueError(f"the saved position is a count of windows, not {position!r}")
        self.position = position


def evaluation_batches(tokens, batch_size: int, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All tokens once, in order: inputs and targets, int64, (B, T) with B <= batch_size and T <= context.

    Every token but the first is a target exactly once. Nothing is padded: the last full windows may make a smaller
    batch, and the tokens left over one more of a single shorter row. So weigh a batch's mean loss by `targets.size`.
    `tokens` is a TokenFile or an integer array of at least two tokens, else DataError.

    >>> [targets.tolist() for _, targets in evaluation_batches(np.arange(9), batch_size=2, context=3)]
    [[[1, 2, 3], [4, 5, 6]], [[7, 8]]]
    """
    array, _ = _array(tokens)
    _check_sizes(batch_size, context)
    if len(array) < 2:
        raise DataError(f"evaluation needs at least 2 tokens, and there is {len(array)}; give more text")
    return _evaluation_batches(array, batch_size, context)


def _evaluation_batches(tokens: np.ndarray, batch_size: int, context: int):
    whole, rest = divmod(len(tokens) - 1, context)
    for first in range(0, whole, batch_size):
        yield _gather(tokens, np.arange(first, min(first + batch_size, whole)) * context, context)
    if rest:
        yield _gather(tokens, np.array([whole * context]), rest)


def _gather(tokens: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[starts]
    return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)


def _array(tokens) -> tuple[np.ndarray, int | None]:
    """The ids, and the checksum that tells one corpus from another where there is one."""
    if isinstance(tokens, TokenFile):
        return tokens.tokens, tokens.checksum
    array = np.asarray(tokens)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"tokens are a TokenFile or a flat integer array, not {array.dtype} of shape {array.shape}")
    return array, None


def _check_sizes(batch_size: int, context: int) -> None:
    for name, value in (("batch_size", batch_size), ("context", context)):
        if value < 1:
            raise ValueError(f"{name} is at least 1, not {value}")
