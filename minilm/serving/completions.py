"""The endpoints that write text: prompts go to the engine, and its pieces come back as a response or a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from minilm.generation.batching import Request
from minilm.tokenization import Tokenizer, end_tokens

from .engine import Closed, Engine, QueueFull
from .errors import ApiError, bad_request, closing, queue_full
from .http import json_response, unless_disconnected
from .protocol import ChatRequest, CompletionRequest, Decoding
from .responses import ChatForm, CompletionForm, Form
from .text import AnswerText, Piece

__all__ = ["TextService"]


class TextService:
    """Answers with one model, whose batch `engine` runs. `max_new_tokens` is what a request may ask for at most."""

    def __init__(self, name: str, engine: Engine, tokenizer: Tokenizer, max_new_tokens: int | None = None) -> None:
        config = engine.batch.model.config
        self.name, self.engine, self.tokenizer = name, engine, tokenizer
        self.max_length = engine.batch.capacity
        self.max_new_tokens = max_new_tokens
        self.ends = end_tokens(config, tokenizer)
        self.vocab_size = min(tokenizer.vocab_size, config.vocab_size)
        _ = tokenizer.special_ids, tokenizer.token_bytes  # made once, not by two threads
        self._encoder = ThreadPoolExecutor(1, "encoder")  # long prompts are not encoded between other people's tokens

    async def complete(self, http: HttpRequest, asked: CompletionRequest) -> Response:
        """POST /v1/completions."""
        prompts = await self._in_thread(lambda: [self._prompt(prompt) for prompt in asked.prompts])
        decoding = asked.decoding
        form = CompletionForm(self.name, self.tokenizer, sum(map(len, prompts)), decoding.top_logprobs is not None)
        echo = []
        if asked.echo:
            texts = [one if isinstance(one, str) else self.tokenizer.decode(one) for one in asked.prompts]
            echo = [Piece(i, texts[i // decoding.n]) for i in range(len(prompts) * decoding.n)]
        return await self._answer(http, decoding, prompts, form, echo)

    async def chat(self, http: HttpRequest, asked: ChatRequest) -> Response:
        """POST /v1/chat/completions."""
        prompt = await self._in_thread(lambda: self._conversation(asked.messages))
        form = ChatForm(self.name, self.tokenizer, len(prompt), asked.decoding.top_logprobs is not None)
        return await self._answer(http, asked.decoding, [prompt], form)

    def _prompt(self, prompt: str | list[int]) -> np.ndarray:
        if isinstance(prompt, str):
            try:
                ids = self.tokenizer.encode(prompt)
            except ValueError as error:  # a character that the tokenizer does not know
                raise bad_request(f"the prompt can't be encoded: {error}", "prompt") from None
        else:
            if odd := [id for id in prompt if not 0 <= id < self.vocab_size]:
                raise bad_request(f"prompt has the token {odd[0]}; ids go from 0 to {self.vocab_size - 1}", "prompt")
            ids = np.array(prompt, np.int64)
        if not len(ids):
            if self.tokenizer.eos_token_id is None:
                raise bad_request("the prompt is empty; give some text", "prompt")
            ids = np.array([self.tokenizer.eos_token_id])  # documents follow it
        return ids

    def _conversation(self, messages: list[dict]) -> np.ndarray:
        if not self.tokenizer.chat_templates:
            raise bad_request(f"{self.name} has no chat template; it continues texts: POST /v1/completions")
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        except ValueError as error:  # a template refuses an order of roles, say
            raise bad_request(str(error), "messages") from None

    async def _answer(
        self, http: HttpRequest, decoding: Decoding, prompts: list[np.ndarray], form: Form, echo: Sequence[Piece] = ()
    ) -> Response:
        loop, arriving = asyncio.get_running_loop(), asyncio.Queue()

        def emit(piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody listens
                loop.call_soon_threadsafe(arriving.put_nowait, piece)

        requests = self._requests(decoding, prompts, emit)
        try:
            self.engine.submit(requests)
        except QueueFull as error:
            raise queue_full(error.args[0]) from None
        except Closed:
            raise closing() from None
        n = len(prompts) * decoding.n
        pieces, done = _pieces(arriving, n, echo), lambda: self.engine.cancel(requests)
        if decoding.stream:
            return EventStream(_events(pieces, n, form, decoding.include_usage), done)
        try:
            answers = await unless_disconnected(http, _gathered(pieces, n))
        finally:
            done()
        return Response(status_code=499) if answers is None else json_response(form.whole(answers))

    def _requests(self, decoding: Decoding, prompts: list[np.ndarray], emit: Callable[[Piece], None]) -> list[Request]:
        """A request for each prompt, which has room for what it asks for; ApiError 400 where there is none."""
        n, rows, room = decoding.n, self.engine.batch.n_rows, self.engine.batch.n_rows + self.engine.queue
        if odd := [token for token in decoding.logit_bias if token >= self.vocab_size]:
            raise bad_request(f"logit_bias has token {odd[0]}; ids go to {self.vocab_size - 1}", "logit_bias")
        if n > rows:
            raise bad_request(f"n is {n}; this server writes {rows} answers at once", "n")
        if n * len(prompts) > room:
            raise bad_request(f"{n * len(prompts)} answers in one request are more than the queue's {room}")
        special = [self.tokenizer.token_to_id(stop) for stop in decoding.stop]  # these are no text to look for
        ends = {*self.ends, *(token for token in special if token in self.tokenizer.special_ids)}
        logprobs = decoding.top_logprobs is not None
        answers = [AnswerText(self.tokenizer, emit, i, decoding.stop, logprobs) for i in range(n * len(prompts))]
        return [
            Request(
                prompt=prompt,
                listeners=answers[p * n : (p + 1) * n],
                max_new_tokens=self._max_new_tokens(decoding.max_tokens, len(prompt)),
                sampling=decoding.sampling,
                seed=decoding.seed,
                ends=ends,
                frequency_penalty=decoding.frequency_penalty,
                presence_penalty=decoding.presence_penalty,
                logit_bias=decoding.logit_bias,
                top_logprobs=decoding.top_logprobs,
            )
            for p, prompt in enumerate(prompts)
        ]

    def _max_new_tokens(self, asked: int | None, length: int) -> int:
        room, most = self.max_length - length, self.max_new_tokens or self.max_length
        if self.max_new_tokens and asked is not None and asked > most:
            raise bad_request(f"max_tokens is {asked}; this server writes {most} at most", "max_tokens")
        if room < (asked or 1):
            raise bad_request(
                f"the prompt's {length} tokens and {asked or 1} new ones are more than the {self.max_length} of this "
                "server's context; shorten the prompt or ask for fewer",
                "messages" if asked is None else "max_tokens",
                "context_length_exceeded",
            )
        return min(room, most) if asked is None else asked

    async def _in_thread(self, work: Callable):
        return await asyncio.get_running_loop().run_in_executor(self._encoder, work)


class EventStream(StreamingResponse):
    """Server-sent events; `done` is called when they end, and when the client does not listen any more."""

    def __init__(self, events: AsyncIterator[str], done: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.done = done

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.done()


async def _pieces(arriving: asyncio.Queue, n: int, first: Sequence[Piece]) -> AsyncIterator[Piece]:
    """The pieces of n answers as they come, until each is complete."""
    for piece in first:
        yield piece
    while n:
        piece = await arriving.get()
        n -= piece.last
        yield piece


async def _gathered(pieces: AsyncIterator[Piece], n: int) -> list[list[Piece]]:
    answers: list[list[Piece]] = [[] for _ in range(n)]
    async for piece in pieces:
        if piece.error is not None:
            raise _as_api_error(piece.error)
        answers[piece.index].append(piece)
    return answers


async def _events(pieces: AsyncIterator[Piece], n: int, form: Form, include_usage: bool) -> AsyncIterator[str]:
    usage = {"usage": None} if include_usage else {}
    counts = [0] * n
    for first in map(form.first, range(n)):
        if first is not None:
            yield _event(form.chunk([first]) | usage)
    async for piece in pieces:
        if piece.error is not None:
            yield _event(_as_api_error(piece.error).body())
            return
        counts[piece.index] = piece.n_tokens
        yield _event(form.chunk([form.delta(piece.index, [piece])]) | usage)
    if include_usage:
        yield _event(form.chunk([]) | {"usage": form.usage(sum(counts))})
    yield "data: [DONE]\n\n"


def _event(value: dict) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, Closed):
        return closing()
    return ApiError(500, f"the answer failed: {error}", "server_error")
