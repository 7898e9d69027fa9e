"""`minilm serve`: an OpenAI-compatible HTTP endpoint for one model."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from .errors import UsageError, as_usage_error
from .parsing import parse, place

__all__ = ["run"]

_KEY = "MINILM_API_KEY"
_LOOPBACK = "127.0.0.1", "localhost", "::1"


@dataclass
class ServeArguments:
    """What `minilm serve` takes."""

    model: Annotated[str, place("MODEL")]  # a run's or a Hugging Face folder, a GGUF file, or a name on the hub
    host: str = "127.0.0.1"  # the address to listen at; the default is for programs on this machine only
    port: int = 8000  # 0: a free one, which is printed
    name: str | None = None  # what requests call the model; None: its folder's or file's name
    api_key: str | None = None  # what requests have to show; None: what the variable MINILM_API_KEY holds, if any
    rows: int = 16  # answers that are computed at once
    queue: int = 128  # answers that may wait beside those
    max_length: int | None = None  # tokens of a prompt and its answer; None: the model's most, but 4096 at most
    max_new_tokens: int | None = None  # tokens of an answer, at most; None: as many as there is room for
    prefill_tokens: int = 256  # tokens of waiting prompts to read between two steps
    grace: float = 5.0  # seconds that answers on their way have after Ctrl-C or SIGTERM
    weights: Literal["keep", "fp32"] | None = None  # of a GGUF file: quantised as they are, or made float32
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(
        ServeArguments, arguments, "serve", "Serve a model by OpenAI's HTTP interface.", positional="required"
    )
    key = options.api_key or os.environ.get(_KEY) or None
    with as_usage_error():
        _check(options)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"minilm serve needs the package {error.name}, which is not installed: pip install 'minilm[serve]'"
        ) from error

    from minilm.checkpoint.hub import fetch, is_hub_name
    from minilm.models.sentence import is_encoder

    place = Path(fetch(options.model) if is_hub_name(options.model) else options.model)
    name = options.name or place.resolve().name.removesuffix(".gguf")
    if is_encoder(place):
        return _serve_encoder(place, name, key, options)
    return _serve_generator(place, name, key, options)


def _check(options: ServeArguments) -> None:
    if not 0 <= options.port <= 65535:
        raise UsageError(f"port is {options.port}; expected 0 to 65535")
    for field in ("rows", "prefill_tokens", "max_length", "max_new_tokens"):
        if getattr(options, field) is not None and getattr(options, field) < 1:
            raise UsageError(f"{field} is {getattr(options, field)}; expected 1 or more")
    if options.queue < 0 or not 0 <= options.grace < float("inf"):
        raise UsageError(f"queue and grace are 0 or more; got {options.queue} and {options.grace}")


def _serve_encoder(place: Path, name: str, key: str | None, options: ServeArguments) -> int:
    from minilm.models.sentence import SentenceEmbedder
    from minilm.serving.embeddings import EmbeddingService

    from .loading import usable_device

    with as_usage_error():
        embedder = SentenceEmbedder.from_pretrained(place, max_length=options.max_length)
    embedder.model.to(usable_device(options.device))
    service = EmbeddingService(name, embedder, options.queue)
    _listen(service, key, options, lambda grace: service.close(), f"embeds texts of {service.max_length} tokens")
    return 0


def _serve_generator(place: Path, name: str, key: str | None, options: ServeArguments) -> int:
    from minilm.generation.batching import ContinuousBatch
    from minilm.models import RecurrentLM
    from minilm.serving.completions import TextService
    from minilm.serving.engine import Engine

    from .loading import load_generator

    model, tokenizer = load_generator(str(place), options.device, options.weights)
    if hasattr(model, "encode") or isinstance(model, RecurrentLM):
        raise UsageError(
            f"{place} holds a {type(model).__name__}; served are decoder-only transformers, which write, and encoders"
        )
    if (options.max_length or 0) > model.max_length:
        raise UsageError(f"max_length is {options.max_length}; this model can look at {model.max_length} tokens")
    with as_usage_error():
        batch = ContinuousBatch(
            model, options.rows, options.max_length or min(model.max_length, 4096), options.prefill_tokens
        )
    engine = Engine(batch, options.queue, traceback.print_exception)
    service = TextService(name, engine, tokenizer, options.max_new_tokens)
    what = f"{options.rows} answers at once, {batch.capacity} tokens each"
    with engine:
        _listen(service, key, options, lambda grace: engine.close(grace, wait=False), what)
    return 0


def _listen(service, key: str | None, options: ServeArguments, closing, what: str) -> None:
    from minilm.serving.app import create_app
    from minilm.serving.server import Server

    def started(address: str) -> None:
        print(f"{service.name}: {what}; {address}/v1", flush=True)

    hosts = None
    if key is None and options.host in _LOOPBACK:
        hosts = _LOOPBACK
    elif key is None:
        print(f"minilm: anybody who reaches {options.host} may ask: set {_KEY} to have a key", file=sys.stderr)
    try:
        Server(create_app(service, key, hosts), options.host, options.port, started, closing, options.grace).listen()
    except OSError as error:
        raise UsageError(
            f"can't listen at {options.host}, port {options.port}: {error.strerror or error}; name another with --host "
            "and --port (0 takes a free one)"
        ) from error
