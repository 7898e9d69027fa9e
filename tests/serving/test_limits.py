"""A server with more to do than it can, that fails, or that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_client import ask_of, openai, served, text_server, until

from minilm.generation.batching import ContinuousBatch
from minilm.serving.engine import Engine


def test_a_full_queue_says_so(model, tokenizer):
    with text_server(model, tokenizer, rows=1, queue=1, max_new_tokens=100) as (client, engine):
        long = {"model": "tiny", "prompt": "a", "max_tokens": 100, "logit_bias": {"84": -100, "256": -100}}
        with pytest.raises(openai.BadRequestError, match="this server writes 100 at most"):
            client.completions.create(**{**long, "max_tokens": 101})
        real_step, go = engine.batch.step, threading.Event()
        engine.batch.step = lambda: go.wait(60) and real_step()
        with ThreadPoolExecutor(2) as clients:
            answers = [clients.submit(client.completions.create, **long) for _ in range(2)]
            until(lambda: engine.load == 2)
            with pytest.raises(openai.RateLimitError, match="the server is busy: 2 answers") as caught:
                client.completions.create(**long)
            assert caught.value.response.headers["retry-after"] == "1"
            go.set()
            assert [answer.result().usage.completion_tokens for answer in answers] == [100, 100]


def test_a_failing_step_is_an_error_of_its_requests_only(model, tokenizer):
    from minilm.serving.completions import TextService

    failures = []
    engine = Engine(ContinuousBatch(model, 2, 120), 4, failures.append)
    real_step = engine.batch.step

    def broken():
        engine.batch.step = real_step
        real_step()
        raise MemoryError("no room")

    with engine, served(TextService("tiny", engine, tokenizer)) as at, ask_of(at) as client:
        engine.batch.step = broken
        with pytest.raises(openai.InternalServerError, match="the answer failed: no room"):
            client.completions.create(model="tiny", prompt="a", max_tokens=9)
        engine.batch.step = broken
        with pytest.raises(openai.APIError, match="the answer failed: no room"):
            list(client.completions.create(model="tiny", prompt="a", max_tokens=9, stream=True))
        assert client.completions.create(model="tiny", prompt="a", max_tokens=9).choices
    assert [str(error) for error in failures] == ["no room"] * 2


def test_an_engine_that_closes_lets_running_answers_end(model, tokenizer):
    with text_server(model, tokenizer, rows=1) as (client, engine):
        long = {"model": "tiny", "prompt": "a", "max_tokens": 100, "logit_bias": {"84": -100, "256": -100}}
        real_step, go = engine.batch.step, threading.Event()
        engine.batch.step = lambda: (real_step(), go.wait(60))
        with ThreadPoolExecutor(2) as clients:
            running = clients.submit(client.completions.create, **long)
            until(lambda: engine.batch.running)
            waiting = clients.submit(client.completions.create, **long)
            until(lambda: engine.load == 2)
            engine.close(60, wait=False)
            go.set()
            with pytest.raises(openai.InternalServerError, match="shutting down") as caught:
                waiting.result()
            assert caught.value.status_code == 503
            assert running.result().usage.completion_tokens == 100
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.completions.create(**long)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_signals_end_the_program_quietly(folder):
    words = ["serve", str(folder), "--port", "0", "--max-length", "1000"]
    program = "import sys; from minilm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for grace, signals in [("0", [signal.SIGINT]), ("60", [signal.SIGTERM, signal.SIGINT])]:
        with subprocess.Popen(
            [sys.executable, "-c", program, *words, "--grace", grace],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            line = process.stdout.readline()
            at = re.search(r"tiny: 16 answers at once, 1000 tokens each; (http://127.0.0.1:\d+)/v1", line)
            assert at, line + process.stderr.read()
            with ask_of(at[1]) as client:
                fields = {"prompt": "a", "max_tokens": 990, "n": 16, "logit_bias": {"84": -100, "256": -100}}
                with client.completions.create(model="tiny", stream=True, **fields) as chunks:
                    next(iter(chunks))
                    for number in signals:
                        process.send_signal(number)
                    with pytest.raises(openai.APIError, match="shutting down"):
                        list(chunks)
            out, errors = process.communicate(timeout=120)
            assert (process.returncode, out, errors) == (0, "", "")
