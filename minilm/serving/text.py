"""An answer as text: tokens become pieces that are certain, and end before a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minilm.generation.batching import Token
from minilm.tokenization import StopFinder, StreamDecoder, Tokenizer

__all__ = ["AnswerText", "Piece", "TextToken"]


@dataclass(frozen=True)
class TextToken:
    """A token of a text, for its log probability: its bytes, and where in the answer it begins."""

    token: Token
    offset: int


@dataclass(frozen=True)
class Piece:
    """What an answer grew by: text, the tokens that begin in it (on request), and at its end why, or an error."""

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
