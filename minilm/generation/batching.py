"""Continuous batching: requests decoded together on one model, which join and leave between any two steps.

Each answer has a row of a static cache. A step first reads some tokens of prompts that wait, so that a long one doesn't
stop those who are being answered for long, then computes one token for every row (Yu et al. 2022, Orca, OSDI).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from minilm_kernels.checks import wide

from minilm import backend
from minilm.autograd import no_grad

from .penalties import add_bias, penalize_counts
from .processors import log_probabilities, require
from .sampling import SamplingOptions

__all__ = ["ContinuousBatch", "Listener", "Request", "Token"]


@dataclass(frozen=True)
class Token:
    """A new token; on request its log probability by the model's own logits, and the likeliest tokens with theirs."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Listener(Protocol):
    """Who gets an answer, token by token; called between steps, by whoever calls `step`."""

    def token(self, token: Token) -> bool:
        """Takes the next token of the text; whether the answer ends with it (a stop string was completed, say)."""

    def end(self, reason: str) -> None:
        """The answer is complete: "stop" (at an end token, or because `token` said so) or "length"."""

    def fail(self, error: Exception) -> None:
        """There will be no more of it."""


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt (T,) of token ids, an answer for each of its `listeners`, and how they are decoded.

    Answer i draws from a stream of its own, seeded with `seed` + i: it is what `generate` gives for the prompt alone
    with this seed, whatever else is computed beside it. An answer ends after `max_new_tokens`, or at one of `ends`. The
    penalties and `logit_bias` are those of penalties.py, and come before what `sampling` says. `top_logprobs` n > 0
    names the n likeliest tokens at each place, 0 the log probability of the chosen one only.
    """

    prompt: np.ndarray
    listeners: Sequence[Listener]
    max_new_tokens: int
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    ends: Collection[int] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None


class ContinuousBatch:
    """A model, and up to `rows` answers that it writes at once, each with its prompt up to `capacity` tokens long.

    `add` puts a request into the queue, `step` computes, `cancel` ends a request at once. All of them belong to one
    thread. The model is any whose `new_cache` makes a static cache; it stays in eval mode. A step reads
    `prefill_tokens` of waiting prompts at most. Raises ValueError for requests that do not fit.
    """

    def __init__(self, model, rows: int = 16, capacity: int | None = None, prefill_tokens: int = 256) -> None:
        capacity = model.max_length if capacity is None else capacity
        require(rows >= 1, f"rows is how many answers are computed at once, at least 1; got {rows}")
        require(
            1 <= capacity <= model.max_length,
            f"capacity is 1 to {model.max_length}, the tokens that the model can look at; got {capacity}",
        )
        require(prefill_tokens >= 1, f"prefill_tokens must be at least 1; got {prefill_tokens}")
        self.model, self.n_rows, self.capacity, self.prefill_tokens = model.eval(), rows, capacity, prefill_tokens
        self.cache = model.new_cache(capacity=capacity, implementation="static", rows=rows)
        self.waiting: deque[Request] = deque()
        self.running: list[_Answer] = []  # answer i has row i of the cache
        self._reading: Request | None = None  # in the last row, which is free as long as its answers have none
        self._n_read = 0
        self.load = 0  # answers that are computed or wait; other threads may look at it

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.running or self.waiting or self._reading)

    def check(self, request: Request) -> None:
        """Raises ValueError for a request that there can never be room for."""
        length, n = len(request.prompt), len(request.listeners)
        require(length >= 1, "the prompt is empty: give at least one token (the end-of-text token, say)")
        require(request.max_new_tokens >= 1, f"max_new_tokens must be at least 1; got {request.max_new_tokens}")
        require(
            length + request.max_new_tokens <= self.capacity,
            f"the prompt's {length} tokens and {request.max_new_tokens} new ones are more than the {self.capacity} "
            "that there is room for",
        )
        require(1 <= n <= self.n_rows, f"a request has 1 to {self.n_rows} answers, the rows that there are; got {n}")

    def add(self, request: Request) -> None:
        """Puts a request at the end of the queue."""
        self.check(request)
        self.waiting.append(request)
        self.load += len(request.listeners)

    def step(self) -> None:
        """Reads some of a waiting prompt, if a row is free for it, and computes the next token of each answer."""
        with no_grad():
            self._read()
            self._decode()

    def cancel(self, request: Request) -> None:
        """Ends a request, wherever it is; its listeners hear no more of it."""
        if request in self.waiting:
            self.waiting.remove(request)
            self.load -= len(request.listeners)
        if self._reading is request:
            self._reading = None
            self.load -= len(request.listeners)
            self.cache.free(self.n_rows - 1)
        for i in reversed(range(len(self.running))):
            if self.running[i].request is request:
                self._leave(i)

    def fail(self, error: Exception) -> None:
        """Ends all requests with an error; the cache is empty then."""
        listeners = [answer.listener for answer in self.running]
        listeners += self._reading.listeners if self._reading else []
        self.running, self._reading = [], None
        for row in range(self.n_rows):
            self.cache.free(row)
        for listener in listeners:
            listener.fail(error)
        self.refuse_waiting(error)
        self.load = 0

    def refuse_waiting(self, error: Exception) -> None:
        """Ends the requests that have not been begun with an error."""
        while self.waiting:
            listeners = self.waiting.popleft().listeners
            self.load -= len(listeners)
            for listener in listeners:
                listener.fail(error)

    def _read(self) -> None:
        last, budget = self.n_rows - 1, self.prefill_tokens
        while budget > 0 and self._next() is not None:
            request = self._reading
            part = request.prompt[self._n_read : self._n_read + budget]
            logits = self._logits(part[None], self.cache.rows(last, last + 1))
            self._n_read += len(part)
            budget -= len(part)
            if self._n_read < len(request.prompt):
                break
            first = len(self.running)
            for i in range(len(request.listeners)):
                self.cache.copy(last, first + i)
                self.running.append(_Answer(request, i))
            self._reading = None
            if len(self.running) < self.n_rows:
                self.cache.free(last)
            self._take(range(first, len(self.running)), np.repeat(logits, len(request.listeners), axis=0))

    def _next(self) -> Request | None:
        """The request whose prompt is being read: the next one that waits, once there is a row for each answer."""
        if self._reading is None and self.waiting:
            if len(self.running) + len(self.waiting[0].listeners) > self.n_rows:
                return None
            self._reading, self._n_read = self.waiting.popleft(), 0
        return self._reading

    def _decode(self) -> None:
        if self.running:
            n = len(self.running)
            tokens = np.array([[answer.ids[answer.length - 1]] for answer in self.running])
            self._take(range(n), self._logits(tokens, self.cache.rows(0, n)))

    def _logits(self, ids: np.ndarray, cache) -> np.ndarray:
        """Logits (B, V), in float32 or float64, for the token after `ids` (B, T)."""
        out = self.model(ids, cache=cache, logits_to_keep=1)
        logits = backend.to_numpy(out.logits.data)[:, -1]
        return logits.astype(wide(logits))

    def _take(self, rows: range, logits: np.ndarray) -> None:
        """Has the answers in these rows choose their next tokens; those at their end leave.

        The last first: the row that takes a leaving one's place has chosen already.
        """
        for i, scores in zip(reversed(rows), reversed(logits)):
            if self.running[i].take(scores):
                self._leave(i)

    def _leave(self, row: int) -> None:
        last = self.running.pop()
        self.load -= 1
        if row < len(self.running):
            self.running[row] = last
            self.cache.copy(len(self.running), row)
        self.cache.free(len(self.running))


class _Answer:
    """One answer on its way: the tokens so far and the stream that it draws from."""

    def __init__(self, request: Request, index: int) -> None:
        self.request, self.listener = request, request.listeners[index]
        self.stream = backend.Generator(request.seed + index)
        self.start = self.length = len(request.prompt)
        self.ids = np.empty(self.start + request.max_new_tokens, np.int64)
        self.ids[: self.start] = request.prompt

    def take(self, logits: np.ndarray) -> bool:
        """Chooses the next token by logits (V,); whether that was the last."""
        if np.isnan(logits).any():
            self.listener.fail(FloatingPointError("the model's logits have NaN: its weights have come to grief"))
            return True
        token = self._choose(logits)
        self.ids[self.length] = token
        self.length += 1
        if token in self.request.ends or self.listener.token(self._described(token, logits)):
            self.listener.end("stop")
        elif self.length == len(self.ids):
            self.listener.end("length")
        else:
            return False
        return True

    def _choose(self, logits: np.ndarray) -> int:
        request, scores, so_far = self.request, logits[None], self.ids[: self.length]
        if request.logit_bias:
            scores = add_bias(scores, request.logit_bias)
        if request.frequency_penalty or request.presence_penalty:
            new = so_far[self.start :]
            scores = penalize_counts(scores, [new], request.frequency_penalty, request.presence_penalty)
        scores = request.sampling.scores(scores, [so_far])
        return int(request.sampling.choose(scores, self.stream)[0])

    def _described(self, token: int, logits: np.ndarray) -> Token:
        n = self.request.top_logprobs
        if n is None:
            return Token(token)
        logprobs = log_probabilities(logits)
        top = np.argsort(-logprobs, kind="stable")[:n]
        return Token(token, float(logprobs[token]), tuple((int(i), float(logprobs[i])) for i in top))
