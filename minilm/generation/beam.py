"""Beam search: the likeliest of several sequences that are followed at once, as transformers finds them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from minilm_kernels import log_softmax
from minilm_kernels.ordering import first_places

from .decoder import Decoder
from .options import BeamOptions, GenerationConfig
from .output import Record
from .processors import LogitsProcessors

__all__ = ["beam_search"]

_NEVER = -1e9  # the score of what is not to be taken up; finite, so that sums of it are


class Finished:
    """The best finished sequences of one prompt, the best first."""

    def __init__(self, options: BeamOptions, max_new_tokens: int) -> None:
        self.options, self.max_new_tokens = options, max_new_tokens
        self.best: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.done = False

    @property
    def full(self) -> bool:
        """Whether there are as many as there are beams."""
        return len(self.best) == self.options.num_beams

    def add(self, score: float, tokens: np.ndarray, path: np.ndarray) -> None:
        """Takes up a sequence whose new tokens' log probabilities sum up to `score`, if that is good enough.

        `path` (new,) are the rows that these came from.
        """
        self.best.append((score / len(path) ** self.options.length_penalty, tokens, path))
        self.best = sorted(self.best, key=lambda found: -found[0])[: self.options.num_beams]

    def settle(self, running: float, length: int) -> None:
        """Sees whether the search is over, the best sequence still followed having `length` new tokens and a score."""
        options = self.options
        if options.early_stopping == "never" and options.length_penalty > 0:
            length = self.max_new_tokens
        hopeless = running / length**options.length_penalty <= self.best[-1][0] if self.full else False
        self.done = self.done or hopeless or (self.full and options.early_stopping is True)


def beam_search(
    decoder: Decoder,
    ids: np.ndarray,
    mask: np.ndarray | None,
    config: GenerationConfig,
    process: LogitsProcessors,
    ended: Callable[[np.ndarray], np.ndarray],
    record: Record | None,
) -> tuple[np.ndarray, dict]:
    """The best sequences (B num_return_sequences, T + new) for prompts `ids` (B, T), their scores and their beams.

    `ended(ids)` says which rows end with their last token. The prompts are read once, not once a beam.
    """
    n, rows, max_new_tokens = config.num_beams, len(ids), config.max_new_tokens
    if max_new_tokens == 0:
        return np.repeat(ids, config.num_return_sequences, axis=0), {}
    finished = [Finished(config, max_new_tokens) for _ in range(rows)]
    repeated = np.repeat(np.arange(rows), n)
    totals, paths = np.full((rows, n), _NEVER), np.empty((rows * n, 0), np.int64)
    totals[:, 0] = 0  # the beams begin alike: only the first one's continuations count
    for length in range(1, max_new_tokens + 1):
        logits = decoder.next_logits(ids, mask)
        if length == 1:
            decoder.select(repeated)
            logits, ids, mask = logits[repeated], ids[repeated], None if mask is None else mask[repeated]
            if record is not None:
                record.repeat(repeated)
        scores = process(ids, log_softmax(logits), mask)
        if record is not None:
            record.step(logits=logits, scores=scores)
        # Of all continuations the best: so many that n of them go on, even if each of the others is at an end.
        count = max(2, 1 + len(config.eos_token_id)) * n
        totals, beams, tokens = _continued(scores.reshape(rows, n, -1), totals, count)
        sources = beams + np.arange(rows)[:, None] * n
        longer = np.concatenate([ids[sources], tokens[:, :, None]], axis=2)  # (B, candidates, T + 1)
        ways = np.concatenate([paths[sources], sources[:, :, None]], axis=2)
        at_end = np.ones(tokens.shape, bool)
        if length < max_new_tokens:
            at_end = ended(longer.reshape(-1, longer.shape[2])).reshape(tokens.shape)
        for row, found in enumerate(finished):
            for place in np.flatnonzero(at_end[row, :n]):
                if not found.done:
                    found.add(totals[row, place], longer[row, place], ways[row, place])
        totals, going_on = _best(np.where(at_end, totals + _NEVER, totals), n)
        for row, found in enumerate(finished):
            found.settle(totals[row, 0], length)
        if all(found.done for found in finished) or at_end.all():
            break
        at = np.arange(rows)[:, None], going_on
        ids, paths, sources = longer[at].reshape(rows * n, -1), ways[at].reshape(rows * n, -1), sources[at].reshape(-1)
        decoder.select(sources)
        mask = None if mask is None else np.concatenate([mask[sources], np.ones((rows * n, 1), mask.dtype)], axis=1)
    scores, best, ways = zip(*(each for found in finished for each in found.best[: config.num_return_sequences]))
    about = {"sequences_scores": np.array(scores, np.float32), "beam_indices": _filled(ways, -1)}
    return _filled(best, config.pad_token_id), about


def _filled(arrays: tuple[np.ndarray, ...], filler: int) -> np.ndarray:
    """The arrays as rows of one, filled up on the right."""
    out = np.full((len(arrays), max(map(len, arrays))), filler)
    for row, array in zip(out, arrays):
        row[: len(array)] = array
    return out


def _continued(scores: np.ndarray, totals: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best continuations of each row's beams: their totals, the best first, and each one's beam and token.

    scores (B, n, V) are those of the next tokens, totals (B, n), float64, those of the beams so far.
    """
    scores, tokens = _best(scores, k)  # of each beam
    each = scores.shape[2]
    totals, chosen = _best((scores + totals[:, :, None]).reshape(len(totals), -1), k)
    beams, places = np.divmod(chosen, each)
    return totals, beams, tokens[np.arange(len(totals))[:, None], beams, places]


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row of scores (..., N), the largest first, and their places."""
    places = first_places(-scores, min(k, scores.shape[-1]))
    return np.take_along_axis(scores, places, axis=-1), places
