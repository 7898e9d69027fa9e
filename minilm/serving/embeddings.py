"""The endpoint that embeds: texts to vectors, by an encoder on a thread of its own."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from minilm.models.sentence import SentenceEmbedder

from .errors import bad_request, closing, queue_full
from .http import json_response
from .protocol import EmbeddingRequest
from .responses import embeddings

__all__ = ["EmbeddingService"]


class EmbeddingService:
    """Embeds with one encoder, one request after the other; up to `queue` of them wait."""

    def __init__(self, name: str, embedder: SentenceEmbedder, queue: int = 128) -> None:
        self.name, self.embedder, self.queue = name, embedder, queue
        self.max_length = embedder.max_length
        self.load, self.open = 0, True
        self._thread = ThreadPoolExecutor(1, "embedder")

    async def embed(self, _: HttpRequest, asked: EmbeddingRequest) -> Response:
        """POST /v1/embeddings."""
        width = self.embedder.model.config.hidden_size
        if asked.dimensions not in (None, width):
            raise bad_request(f"dimensions is {asked.dimensions}; this model's vectors have {width}", "dimensions")
        if not self.open:
            raise closing()
        if self.load > self.queue:
            raise queue_full(self.load)
        self.load += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, asked.inputs)
            vectors, n_tokens = await work
        finally:
            self.load -= 1
        return json_response(embeddings(self.name, [_sent(vector, asked.base64) for vector in vectors], n_tokens))

    def close(self) -> None:
        """Takes no more requests; those that wait are done."""
        self.open = False

    def _embed(self, inputs: list[str | list[int]]) -> tuple[np.ndarray, int]:
        ids = [self._ids(i, one) for i, one in enumerate(inputs)]
        return self.embedder.vectors(ids), sum(map(len, ids))

    def _ids(self, index: int, given: str | list[int]) -> np.ndarray:
        tokenizer, where = self.embedder.tokenizer, f"input {index}"
        if isinstance(given, str):
            try:
                ids = tokenizer.encode(given, add_special_tokens=True)
            except ValueError as error:
                raise bad_request(f"{where} can't be encoded: {error}", "input") from None
        else:
            ids = np.array(given, np.int64)
            if ids.min() < 0 or ids.max() >= tokenizer.vocab_size:
                raise bad_request(f"{where} has tokens beyond 0 to {tokenizer.vocab_size - 1}", "input")
        if not 1 <= len(ids) <= self.max_length:
            raise bad_request(
                f"{where} has {len(ids)} tokens; this model takes 1 to {self.max_length}", "input",
                "context_length_exceeded",
            )  # fmt: skip
        return ids


def _sent(vector: np.ndarray, as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(str(x)) for x in vector]  # a float32's own shortest decimals
