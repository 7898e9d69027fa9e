"""A server in a thread, and OpenAI's own client for it; where one of them is not installed, tests are skipped."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from minilm.generation.batching import ContinuousBatch
from minilm.serving.engine import Engine

__all__ = ["ask_of", "httpx", "idle", "openai", "served", "text_server", "until"]

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
pytest.importorskip("uvicorn", reason="uvicorn, of the extra serve, is not installed")
openai = pytest.importorskip("openai", reason="the openai client, the peer, is not installed")
pytest.importorskip("jinja2", reason="chat templates need jinja2")
httpx = pytest.importorskip("httpx2" if find_spec("httpx2") else "httpx", reason="the openai client brings one of them")


@contextmanager
def served(service, key=None, close=lambda grace: None, hosts=None):
    """Serves in a thread, on a free port; the address."""
    from minilm.serving.app import create_app
    from minilm.serving.server import Server

    address, started = [], threading.Event()
    server = Server(
        create_app(service, key, hosts),
        "127.0.0.1",
        0,
        lambda at: (address.append(at), started.set()),
        close,
        grace=1.0,
    )
    thread = threading.Thread(target=server.listen)
    thread.start()
    assert started.wait(60)
    try:
        yield address[0]
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


def ask_of(address, key=None):
    """A client of the server there."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key or "none", max_retries=0, timeout=120)


@contextmanager
def text_server(model, tokenizer, rows=6, queue=200, key=None, **settings):
    """A client of a server with that model, and its engine."""
    from minilm.serving.completions import TextService

    failures = []
    engine = Engine(ContinuousBatch(model, rows, 120, prefill_tokens=32), queue, failures.append)
    service = TextService("tiny", engine, tokenizer, **settings)
    with engine, served(service, key, lambda grace: engine.close(grace, wait=False)) as at, ask_of(at, key) as client:
        yield client, engine
    assert not failures


def until(condition, seconds=60):
    """Waits for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def idle(engine):
    """Waits until nothing runs, and sees that nothing is held."""
    until(lambda: engine.load == 0)
    assert not engine.batch.cache.lengths.any()  # every row of the cache is free
