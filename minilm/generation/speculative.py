"""Speculative decoding: several tokens are guessed cheaply, and the model looks at all of them in one step.

Leviathan et al. 2023 (https://arxiv.org/abs/2211.17192). The guesses come from a small model, or are what followed the
last tokens when they were there before (prompt lookup: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .decoder import Decoder
from .options import GenerationConfig
from .output import Record
from .processors import LogitsProcessors, log_probabilities
from .sampling import Streams, sample
from .stopping import Ending

__all__ = ["DraftModel", "PromptLookup", "speculate"]


class PromptLookup:
    """Guesses that the text goes on as it did where its last tokens were before, up to `n` tokens."""

    longest = 3  # so many of the last tokens are looked for, fewer where these are found nowhere

    def __init__(self, n: int) -> None:
        self.n = n

    def propose(self, ids: np.ndarray, mask: np.ndarray | None, n: int) -> tuple[np.ndarray, None]:
        """Up to n tokens after `ids` (1, T); None says that they are certain, as far as the guesser goes."""
        tokens = ids[0] if mask is None else ids[0][mask[0] != 0]
        for size in range(min(self.longest, len(tokens) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
            found = np.flatnonzero((windows == tokens[-size:]).all(axis=1))
            if len(found):
                n, after = min(n, self.n), found + size
                whole = after[after + n <= len(tokens)]
                start = whole[-1] if len(whole) else after[0]  # the latest of those that n tokens follow
                return tokens[start : start + n], None
        return tokens[:0], None

    def settle(self, length: int) -> None:
        """It keeps nothing."""


class DraftModel:
    """Guesses with a model of its own, whose tokens are chosen as the large model's are."""

    def __init__(self, decoder: Decoder, config: GenerationConfig, process: LogitsProcessors, streams) -> None:
        self.decoder, self.config, self.process, self.streams = decoder, config, process, streams

    def propose(self, ids: np.ndarray, mask: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Up to n tokens after `ids` (1, T), and the probabilities (n, V) by which each was drawn, if they were."""
        known, chances = ids.shape[1], []
        for _ in range(min(n, self.config.num_assistant_tokens)):
            scores = self.process(ids, self.decoder.next_logits(ids, mask), mask)
            if self.config.do_sample:
                chances.append(np.exp(log_probabilities(scores[0])))
            ids, mask = _longer(ids, mask, self.config.choose(scores, self.streams))
            if ids[0, -1] in self.config.eos_token_id:
                break
        return ids[0, known:], np.array(chances) if chances else None

    def settle(self, length: int) -> None:
        """Forgets what it knows of all tokens but the first `length`."""
        self.decoder.forget(length)


def speculate(
    decoder: Decoder,
    guesser: PromptLookup | DraftModel,
    ids: np.ndarray,
    mask: np.ndarray | None,
    config: GenerationConfig,
    process: LogitsProcessors,
    ended: Ending,
    record: Record | None,
    streamer: Callable[[np.ndarray], None] | None,
    streams: Streams,
) -> np.ndarray:
    """The tokens (1, T + new): greedily those that there would be without guesses, drawn ones by the same law."""
    left = config.max_new_tokens
    while left:
        # The last token of a step is the model's own, so that one guess less is needed; and none past its window.
        room = min(left - 1, decoder.model.max_length - (ids.shape[1] - decoder.start))
        guesses, chances = guesser.propose(ids, mask, room) if room > 0 else (ids[0, :0], None)
        more, more_mask = _longer(ids, mask, guesses)
        logits = decoder.last_logits(more, more_mask, len(guesses) + 1)
        for place, after in enumerate(logits[0]):
            scores = process(ids, after[None], mask)
            guess = int(guesses[place]) if place < len(guesses) else None
            offered = None if chances is None or guess is None else chances[place]
            token = _decide(scores, guess, offered, config, streams)
            if record is not None:
                record.step(logits=after[None], scores=scores)
            ids, mask = _longer(ids, mask, token)
            left -= 1
            if streamer is not None:
                streamer(token)
            if ended(ids)[0]:
                return ids
            if guess is None or token[0] != guess:
                break
        decoder.forget(ids.shape[1] - 1)
        guesser.settle(ids.shape[1] - 1)
    return ids


def _decide(scores: np.ndarray, guess: int | None, chances: np.ndarray | None, config: GenerationConfig, streams):
    """The token (1,) by scores (1, V): the guess, if it may stand, else another one.

    A guess that was drawn with the probabilities q stands with the probability min(1, p / q), else a token is drawn in
    proportion to max(0, p - q): together that is p. Without `chances` (V,), q is 1 for the guess.
    """
    if guess is None or not config.do_sample:
        return config.choose(scores, streams)
    wanted = np.exp(log_probabilities(scores[0]))
    offered = np.eye(1, len(wanted), guess)[0] if chances is None else chances
    if streams.uniform((1,), dtype="float64")[0] * offered[guess] < wanted[guess]:
        return np.array([guess])
    rest = np.maximum(wanted - offered, 0)
    if not rest.any():  # p and q are the same but for rounding
        return np.array([guess])
    with np.errstate(divide="ignore"):
        return sample(np.log(rest)[None], streams.uniform((1,), dtype="float64"))


def _longer(ids: np.ndarray, mask: np.ndarray | None, tokens: np.ndarray):
    """(ids, mask) with further tokens (n,) in their row."""
    if mask is not None:
        mask = np.concatenate([mask, np.ones((1, len(tokens)), mask.dtype)], axis=1)
    return np.concatenate([ids, tokens[None]], axis=1), mask
