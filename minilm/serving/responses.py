"""Answers of OpenAI's API, as JSON: whole ones and the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from minilm.tokenization import Tokenizer

from .text import Piece, TextToken

__all__ = ["ChatForm", "CompletionForm", "embeddings", "model_list"]

_LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON lacks


class Form:
    """What both kinds of answers have in common: who they are, and what they cost."""

    def __init__(self, model: str, tokenizer: Tokenizer, prompt_tokens: int, logprobs: bool) -> None:
        self.model, self.tokenizer, self.prompt_tokens, self.logprobs = model, tokenizer, prompt_tokens, logprobs
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())

    def whole(self, answers: Sequence[Sequence[Piece]]) -> dict:
        """The response for answers that are complete, each the pieces it came in."""
        choices = [self.choice(index, pieces) for index, pieces in enumerate(answers)]
        usage = self.usage(sum(pieces[-1].n_tokens for pieces in answers))
        return self._object(self.kind, choices) | {"usage": usage}

    def chunk(self, choices: list[dict]) -> dict:
        """An event of a stream."""
        return self._object(self.chunk_kind, choices)

    def usage(self, completion_tokens: int) -> dict:
        """How many tokens were read and written."""
        total = self.prompt_tokens + completion_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}

    def _object(self, kind: str, choices: list[dict]) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class CompletionForm(Form):
    """POST /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict:
        """An answer, or what it grew by: the same in a response and in a stream."""
        tokens = [token for piece in pieces for token in piece.tokens]
        return {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": self._logprobs(tokens) if self.logprobs else None,
            "finish_reason": pieces[-1].finish_reason,
        }

    def first(self, index: int) -> dict | None:
        """What a stream begins with."""
        return None

    delta = choice

    def _logprobs(self, tokens: list[TextToken]) -> dict:
        name = lambda token: _token_name(self.tokenizer, token)
        return {
            "tokens": [name(one.token.id) for one in tokens],
            "token_logprobs": [_finite(one.token.logprob) for one in tokens],
            "top_logprobs": [{name(id): _finite(logprob) for id, logprob in one.token.top} for one in tokens],
            "text_offset": [one.offset for one in tokens],
        }


class ChatForm(Form):
    """POST /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict:
        """An answer."""
        text = "".join(piece.text for piece in pieces)
        return self._choice(index, "message", {"role": "assistant", "content": text}, pieces)

    def first(self, index: int) -> dict | None:
        """What a stream begins with."""
        return self._choice(index, "delta", {"role": "assistant", "content": ""}, ())

    def delta(self, index: int, pieces: Sequence[Piece]) -> dict:
        """What an answer grew by."""
        text = "".join(piece.text for piece in pieces)
        return self._choice(index, "delta", {"content": text} if text else {}, pieces)

    def _choice(self, index: int, name: str, message: dict, pieces: Sequence[Piece]) -> dict:
        tokens = [token for piece in pieces for token in piece.tokens]
        logprobs = {"content": [self._logprob(one) for one in tokens]} if self.logprobs else None
        reason = pieces[-1].finish_reason if pieces else None
        return {"index": index, name: message, "logprobs": logprobs, "finish_reason": reason}

    def _logprob(self, one: TextToken) -> dict:
        top = [self._entry(id, logprob) for id, logprob in one.token.top]
        return self._entry(one.token.id, one.token.logprob) | {"top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict:
        data = _token_bytes(self.tokenizer, token)
        return {"token": data.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(data)}


def model_list(name: str, created: int) -> dict:
    """GET /v1/models: the one that is served."""
    return {"object": "list", "data": [model_entry(name, created)]}


def model_entry(name: str, created: int) -> dict:
    """GET /v1/models/NAME."""
    return {"id": name, "object": "model", "created": created, "owned_by": "minilm"}


def embeddings(model: str, vectors: Sequence, n_tokens: int) -> dict:
    """POST /v1/embeddings: each vector a list of numbers, or base64 of little-endian float32."""
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


def _token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a token; of a tokenizer that marks spaces and bytes, as SentencePiece's do, what the marks mean."""
    if token >= tokenizer.vocab_size:
        return b""
    if tokenizer.token_bytes is not None:
        return tokenizer.token_bytes[token]
    written = tokenizer.id_to_token(token) or ""
    if len(written) == 6 and written.startswith("<0x") and written.endswith(">"):
        return bytes.fromhex(written[3:5])
    return written.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode("utf-8", "replace")


def _token_name(tokenizer: Tokenizer, token: int) -> str:
    """A token as text or, for a part of a character, as OpenAI writes one: bytes:\\xe2\\x82."""
    data = _token_bytes(tokenizer, token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
