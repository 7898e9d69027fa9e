"""An answer as text: tokens become pieces that are certain, and end before a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minilm.generation.batching import Token
from minilm.tokenization import StreamDecoder, Tokenizer

__all__ = ["AnswerText", "Piece", "StopFinder", "TextToken"]


@dataclass(frozen=True)
class TextToken:
    """A token of a text, for its log probability: its bytes, and where in the answer it begins."""

    token: Token
    offset: int


@dataclass(frozen=True)
class Piece:
    """What an answer grew by: text, the tokens that end in it (on request), and at its end why, or an error."""

    index: int
    text: str = ""
    tokens: Sequence[TextToken] = ()
    finish_reason: str | None = None
    n_tokens: int = 0  # of the answer so far
    error: Exception | None = None

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.finish_reason is not None or self.error is not None


class StopFinder:
    """Passes a text on as it grows, up to a stop string, and holds back what may be the beginning of one.

    >>> finder = StopFinder(["aab"])
    >>> finder.push("xaa"), finder.push("ab, and more"), finder.stopped
    ('x', 'a', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.stopped = tuple(stops), "", False

    def push(self, text: str) -> str:
        """What of the text so far is certain now."""
        self.held += text
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self.held = self.held[: min(found)], ""
            return text
        longest = max((_overlap(self.held, stop) for stop in self.stops), default=0)
        certain = len(self.held) - longest
        text, self.held = self.held[:certain], self.held[certain:]
        return text

    def finish(self) -> str:
        """What was held back, where no more text comes."""
        text, self.held = self.held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`, at most all but one of these."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


@dataclass
class AnswerText:
    """Listens to the tokens of one answer and gives `emit` its pieces, from the thread that computes.

    A special token is no text. With `logprobs` each piece has the tokens that begin in its text; a token that begins in
    a stop string, or after it, is in none.
    """

    tokenizer: Tokenizer
    emit: Callable[[Piece], None]
    index: int = 0
    stops: Sequence[str] = ()
    logprobs: bool = False
    n_tokens: int = 0
    _pending: list[TextToken] = field(default_factory=list)
    _decoded: int = 0  # characters that tokens became so far, and those that were passed on
    _emitted: int = 0

    def __post_init__(self) -> None:
        self._decoder = StreamDecoder(self.tokenizer, skip_special_tokens=True)
        self._finder = StopFinder(self.stops)

    def token(self, token: Token) -> bool:
        """As `Listener.token`."""
        self.n_tokens += 1
        if self.logprobs:
            self._pending.append(TextToken(token, self._decoded))
        # A model may have more rows in its table than its tokenizer has tokens: they mean nothing.
        self._push(self._decoder.push(token.id) if token.id < self.tokenizer.vocab_size else "")
        return self._finder.stopped

    def end(self, reason: str) -> None:
        """As `Listener.end`."""
        self._push(self._decoder.finish(), reason)

    def fail(self, error: Exception) -> None:
        """As `Listener.fail`."""
        self.emit(Piece(self.index, n_tokens=self.n_tokens, error=error))

    def _push(self, text: str, reason: str | None = None) -> None:
        stopped = self._finder.stopped
        self._decoded += len(text)
        certain = "" if stopped else self._finder.push(text)
        if reason is not None and not self._finder.stopped:
            certain += self._finder.finish()
        self._emitted += len(certain)
        ended = reason is not None and not self._finder.stopped
        ready = len(self._pending) if ended else sum(one.offset < self._emitted for one in self._pending)
        tokens, self._pending = self._pending[:ready], self._pending[ready:]
        if certain or tokens or reason is not None:
            if self._finder.stopped and reason is not None:
                reason = "stop"  # the last character, finished at the last token, completed a stop string
            self.emit(Piece(self.index, certain, tokens, reason, self.n_tokens))
