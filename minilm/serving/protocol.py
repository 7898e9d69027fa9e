"""Requests of OpenAI's API, from JSON: names, defaults and ranges are those of its reference.

What is not supported is refused by its name, never ignored; `top_k`, `min_p` and `repetition_penalty` are added to it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from minilm.generation import SamplingOptions

from .errors import bad_request
from .fields import Fields

__all__ = [
    "ChatRequest", "CompletionRequest", "Decoding", "EmbeddingRequest", "chat_request", "completion_request",
    "embedding_request",
]  # fmt: skip

_GREEDY_BELOW = 1e-4  # a temperature at which all but the likeliest token have lost, and logits / temperature overflow
_MOST_STOPS, _MOST_INPUTS, _MOST_BIASES = 16, 2048, 1024

# What may be said because it changes nothing: it is what is done here anyway.
_NEUTRAL = {
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "tools": ([],),
    "tool_choice": ("none",),
}


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded and sent; `max_tokens` None: as many as there is room for."""

    max_tokens: int | None
    sampling: SamplingOptions
    seed: int
    n: int
    stop: tuple[str, ...]
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    top_logprobs: int | None  # None: no log probabilities
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class CompletionRequest:
    """POST /v1/completions: prompts as texts or as token ids."""

    model: str
    prompts: list[str | list[int]]
    echo: bool
    decoding: Decoding


@dataclass(frozen=True)
class ChatRequest:
    """POST /v1/chat/completions: a conversation, each message's content as one text."""

    model: str
    messages: list[dict[str, str]]
    decoding: Decoding


@dataclass(frozen=True)
class EmbeddingRequest:
    """POST /v1/embeddings: texts or token ids, and whether vectors are sent as numbers or as base64 of float32."""

    model: str
    inputs: list[str | list[int]]
    base64: bool
    dimensions: int | None


def completion_request(fields: Fields) -> CompletionRequest:
    """The request in a JSON object; ApiError 400 for what is not as it has to be."""
    model, prompts, echo = _model(fields), _inputs(fields, "prompt"), fields.boolean("echo")
    top_logprobs = fields.integer("logprobs", None, high=5)
    if echo and top_logprobs is not None:
        raise bad_request("echo with logprobs is not supported: log probabilities are of new tokens only", "logprobs")
    decoding = _decoding(fields, fields.integer("max_tokens", 16, low=1), top_logprobs)
    best_of = fields.integer("best_of", decoding.n)
    if best_of != decoding.n:
        raise fields.wrong("best_of", best_of, f"n, which is {decoding.n}: all answers are returned")
    fields.finish(_NEUTRAL)
    return CompletionRequest(model, prompts, echo, decoding)


def chat_request(fields: Fields) -> ChatRequest:
    """The request in a JSON object; ApiError 400 for what is not as it has to be."""
    model, messages = _model(fields), _messages(fields)
    most, newer = fields.integer("max_tokens", None, low=1), fields.integer("max_completion_tokens", None, low=1)
    if most is not None and newer is not None:
        raise bad_request("max_tokens and max_completion_tokens say the same; give one of them", "max_tokens")
    wanted, top = fields.boolean("logprobs"), fields.integer("top_logprobs", None, high=20)
    if top is not None and not wanted:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    decoding = _decoding(fields, most if newer is None else newer, (top or 0) if wanted else None)
    fields.finish(_NEUTRAL)
    return ChatRequest(model, messages, decoding)


def embedding_request(fields: Fields) -> EmbeddingRequest:
    """The request in a JSON object; ApiError 400 for what is not as it has to be."""
    model, inputs, form = _model(fields), _inputs(fields, "input"), fields.text("encoding_format", "float")
    if form not in ("float", "base64"):
        raise fields.wrong("encoding_format", form, '"float" or "base64"')
    dimensions = fields.integer("dimensions", None, low=1)
    fields.text("user")
    fields.finish()
    return EmbeddingRequest(model, inputs, form == "base64", dimensions)


def _model(fields: Fields) -> str:
    model = fields.text("model")
    if model is None:
        raise bad_request("model is missing; GET /v1/models names the one that is served", "model")
    return model


def _decoding(fields: Fields, max_tokens: int | None, top_logprobs: int | None) -> Decoding:
    fields.text("user")  # says who asks, and changes nothing
    stream, options = fields.boolean("stream"), fields.object("stream_options")
    if options is not None and not stream:
        raise bad_request("stream_options are for streams; set stream: true or leave them out", "stream_options")
    include_usage = options is not None and options.boolean("include_usage")
    if options is not None:
        options.finish()
    return Decoding(
        max_tokens,
        _sampling(fields),
        fields.integer("seed", secrets.randbits(32), high=2**63 - 1),
        fields.integer("n", 1, low=1),
        _stop(fields),
        fields.number("frequency_penalty", 0.0, -2, 2),
        fields.number("presence_penalty", 0.0, -2, 2),
        _logit_bias(fields),
        top_logprobs,
        stream,
        include_usage,
    )


def _sampling(fields: Fields) -> SamplingOptions:
    temperature = fields.number("temperature", 1.0, 0, 2)
    settings = {
        "top_k": fields.integer("top_k", None, low=1),
        "top_p": fields.number("top_p", None, 1e-9, 1),
        "min_p": fields.number("min_p", None, 0, 1),
    }
    penalty = fields.number("repetition_penalty", 1.0, 0.01, 100)
    if temperature < _GREEDY_BELOW:  # the filters never take the likeliest token away
        return SamplingOptions(repetition_penalty=penalty)
    return SamplingOptions(do_sample=True, temperature=temperature, repetition_penalty=penalty, **settings)


def _stop(fields: Fields) -> tuple[str, ...]:
    given = fields.take("stop", [])
    stops = [given] if isinstance(given, str) else given
    if isinstance(stops, list) and len(stops) <= _MOST_STOPS and all(isinstance(one, str) and one for one in stops):
        return tuple(stops)
    raise fields.wrong("stop", given, f"a text, or up to {_MOST_STOPS} of them, none of them empty")


def _logit_bias(fields: Fields) -> dict[int, float]:
    given, expected = fields.take("logit_bias", {}), "an object of token ids and numbers from -100 to 100"
    if not isinstance(given, dict) or len(given) > _MOST_BIASES:
        raise fields.wrong("logit_bias", given, f"{expected}, {_MOST_BIASES} at most")
    inner = Fields(given, "logit_bias")
    if odd := next((name for name in given if not (name.isascii() and name.isdecimal())), None):
        raise inner.wrong(odd, given[odd], expected)
    return {int(name): inner.number(name, None, -100, 100) for name, value in given.items() if value is not None}


def _inputs(fields: Fields, name: str) -> list[str | list[int]]:
    """A text, several texts, a list of token ids, or several of these: always as a list."""
    given = fields.take(name)
    inputs = [given] if isinstance(given, str) or _is_ids(given) else given
    if isinstance(inputs, list) and inputs and all(isinstance(one, str) or _is_ids(one) for one in inputs):
        if len(inputs) <= _MOST_INPUTS:
            return inputs
        raise bad_request(f"{name} has {len(inputs)} entries; expected {_MOST_INPUTS} at most", name)
    raise fields.wrong(name, given, "a text, a list of token ids, or a list of such")


def _is_ids(value) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _messages(fields: Fields) -> list[dict[str, str]]:
    given = fields.take("messages")
    if not isinstance(given, list) or not given or not all(isinstance(message, dict) for message in given):
        raise fields.wrong("messages", given, "a list of objects with role and content")
    return [_message(Fields(message, f"messages[{i}]")) for i, message in enumerate(given)]


def _message(fields: Fields) -> dict[str, str]:
    role, name, content = fields.text("role"), fields.text("name"), fields.take("content")
    if role not in ("system", "developer", "user", "assistant"):
        raise fields.wrong("role", role, '"system", "developer", "user" or "assistant"')
    if isinstance(content, list):  # of parts
        inside = f"{fields.inside}.content"
        parts = [Fields(part, f"{inside}[{i}]") for i, part in enumerate(content) if isinstance(part, dict)]
        texts = [(part.text("type"), part.text("text")) for part in parts]
        if len(texts) < len(content) or any(kind != "text" or text is None for kind, text in texts):
            raise fields.wrong("content", content, 'parts of {"type": "text", "text": ...}: there is only text here')
        for part in parts:
            part.finish()
        content = "".join(text for _, text in texts)
    if not isinstance(content, str):
        raise fields.wrong("content", content, "a text")
    fields.finish()
    # Templates know the older name of those who tell the model what it is.
    message = {"role": "system" if role == "developer" else role, "content": content}
    return message if name is None else {**message, "name": name}
