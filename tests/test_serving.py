"""The server as OpenAI's own client sees it: many clients at once, some of which hang up, and a quiet end."""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from minilm.backend import Generator
from minilm.generation.batching import ContinuousBatch, Request
from minilm.models import Bert, BertConfig, Llama, LlamaConfig
from minilm.models.sentence import SentenceEmbedder
from minilm.serving.engine import Engine
from minilm.tokenization import Tokenizer

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
pytest.importorskip("uvicorn", reason="uvicorn, of the extra serve, is not installed")
openai = pytest.importorskip("openai", reason="the openai client, the peer, is not installed")
pytest.importorskip("jinja2", reason="chat templates need jinja2")
httpx = pytest.importorskip("httpx2" if find_spec("httpx2") else "httpx", reason="the openai client brings one of them")

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama that writes bytes, with weights large enough that its likeliest tokens vary."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=None, eos_token_id=[256, 84],
    )  # fmt: skip
    model, stream = Llama(config), Generator(1)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    model.save_pretrained(path)
    Tokenizer.byte(["<|end|>"]).save(path)
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return Llama.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_pretrained(folder)


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
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key or "none", max_retries=0, timeout=120)


@contextmanager
def text_server(model, tokenizer, rows=6, queue=200, key=None, **settings):
    from minilm.serving.completions import TextService

    failures = []
    engine = Engine(ContinuousBatch(model, rows, 120, prefill_tokens=32), queue, failures.append)
    service = TextService("tiny", engine, tokenizer, **settings)
    with engine, served(service, key, lambda grace: engine.close(grace, wait=False)) as at, ask_of(at, key) as client:
        yield client, engine
    assert not failures


@pytest.fixture(scope="module")
def server(model, tokenizer):
    with text_server(model, tokenizer) as found:
        yield found


@pytest.fixture
def client(server):
    return server[0]


def offline(model, tokenizer, prompt, max_tokens, seed=None, stop=()):
    """What `generate` writes after token ids, as a text that ends before a stop string, and why it ends."""
    settings = {} if seed is None else {"do_sample": True, "seed": seed, "temperature": 0.8, "top_p": 0.9}
    ids = model.generate(prompt[None], max_tokens, **settings)[0, len(prompt) :].tolist()
    reason = "stop" if ids[-1] in (256, 84) else "length"
    text = tokenizer.decode(ids[:-1] if reason == "stop" else ids, skip_special_tokens=True)
    places = [text.find(one) for one in stop if one in text]
    return (text[: min(places)], "stop") if places else (text, reason)


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def idle(engine):
    until(lambda: engine.load == 0)
    assert not engine.batch.cache.lengths.any()  # every row of the cache is free


def job(i):
    """The i-th request: text or chat, greedy or seeded, whole or streamed, some with stop strings, some cut off."""
    prompt = "".join(chr(97 + (i * 7 + k * k) % 26) for k in range(1 + i * 5 % 60))
    fields = {"max_tokens": 1 + i * 3 % 16, "temperature": 0.0}
    if i % 2:
        fields |= {"temperature": 0.8, "top_p": 0.9, "seed": i}
    if i % 3 == 0:
        fields["stop"] = ["e", "Xy"]
    return prompt, fields, i % 5 < 2, i % 4 < 2, i % 8 == 1


def ask(client, i):
    """What a client gets: (text, reason), the reason None where it hangs up after two pieces."""
    prompt, fields, chat, stream, cut = job(i)
    create = client.chat.completions.create if chat else client.completions.create
    fields |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    if not stream:
        (choice,) = create(model="tiny", **fields).choices
        return (choice.message.content if chat else choice.text), choice.finish_reason
    text, reason, n = "", None, 0
    with create(model="tiny", stream=True, **fields) as chunks:
        for chunk in chunks:
            (choice,) = chunk.choices
            text += (choice.delta.content or "") if chat else choice.text
            reason, n = choice.finish_reason, n + 1
            if cut and n == 3:
                break
    return text, reason


def resident():
    """Megabytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_200_requests_of_32_clients_get_what_generate_gives(server, model, tokenizer):
    client, engine = server
    held = []
    with ThreadPoolExecutor(32) as clients:
        found = []
        for part in range(2):
            found += clients.map(lambda i: ask(client, i), range(100 * part, 100 * part + 100))
            idle(engine)
            gc.collect()
            held.append(resident())
    assert held[1] - held[0] < 12, held
    n_cut = 0
    for i, (text, reason) in enumerate(found):
        prompt, fields, chat, _, cut = job(i)
        ids = tokenizer.encode(f"<user>{prompt}\n<a>" if chat else prompt)
        expected = offline(model, tokenizer, ids, fields["max_tokens"], fields.get("seed"), fields.get("stop", ()))
        if cut and reason is None:
            assert expected[0].startswith(text), i
            n_cut += 1
        else:
            assert (text, reason) == expected, i
    assert n_cut >= 10
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Request]  # nothing of an answer is kept


def test_a_client_that_hangs_up_frees_its_row(server, monkeypatch):
    client, engine = server
    steps, real_step = [], engine.batch.step
    monkeypatch.setattr(engine.batch, "step", lambda: (steps.append(1), time.sleep(0.05), real_step()))
    long = {"model": "tiny", "prompt": "a", "max_tokens": 119, "logit_bias": {"84": -100, "256": -100}}
    with client.completions.create(**long, stream=True) as some:
        next(iter(some))
    idle(engine)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1).completions.create(**long, n=6)
    idle(engine)
    assert len(steps) < 200  # of 238 for both answers


def test_a_stream_counts_what_it_cost(client):
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=5, n=2, temperature=0, stream=True,
            stream_options={"include_usage": True}, logit_bias={"84": -100, "256": -100},
        )
    )  # fmt: skip
    *chunks, last = chunks
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}
    assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 12, 10)
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.id for chunk in chunks} == {last.id}


def test_several_prompts_and_answers_in_one_request(client, model, tokenizer):
    prompts = ["one", "two"]
    fields = {"max_tokens": 12, "n": 2, "seed": 5, "temperature": 0.8, "top_p": 0.9, "echo": True}
    found = client.completions.create(model="tiny", prompt=prompts, **fields)
    expected = [
        prompt + offline(model, tokenizer, tokenizer.encode(prompt), 12, seed)[0]
        for prompt in prompts
        for seed in (5, 6)
    ]
    assert [choice.text for choice in found.choices] == expected
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage.prompt_tokens == 6
    texts = [""] * 4
    for chunk in client.completions.create(
        model="tiny", prompt=[[111, 110, 101], [116, 119, 111]], stream=True, **fields
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


def test_log_probabilities(client, model):
    found = client.completions.create(model="tiny", prompt="abc", max_tokens=6, temperature=0, logprobs=2).choices[0]
    logprobs = found.logprobs
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert max(top, key=top.get) == token
        assert (len(top), top[token]) == (2, logprob)
    logits = model(np.frombuffer(b"abc", np.uint8)[None]).logits.data[0, -1].astype(np.float64)
    expected = logits.max() - np.log(np.exp(logits).sum())
    assert logprobs.token_logprobs[0] == pytest.approx(expected, abs=1e-5)
    assert logprobs.text_offset[0] == 0
    (choice,) = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=4, logprobs=True, top_logprobs=3, seed=1
    ).choices
    written = b"".join(bytes(one.bytes) for one in choice.logprobs.content)
    assert written.decode("utf-8", "replace") == choice.message.content
    assert all(len(one.top_logprobs) == 3 for one in choice.logprobs.content)


def test_a_special_token_is_a_stop_string(client):
    found = client.completions.create(
        model="tiny", prompt="a", max_tokens=5, stop="<|end|>", logit_bias={256: 100}, temperature=0
    )
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("fields", "error", "code", "message"),
    [
        ({"model": "other"}, "NotFoundError", "model_not_found", "there is no model other; this server has tiny"),
        ({"prompt": "a" * 130}, "BadRequestError", "context_length_exceeded", "more than the 120"),
        ({"prompt": "a" * 110, "max_tokens": 11}, "BadRequestError", "context_length_exceeded", "110 tokens and 11"),
        ({"prompt": [300]}, "BadRequestError", None, "prompt has the token 300; ids go from 0 to 256"),
        ({"n": 7}, "BadRequestError", None, "n is 7; this server writes 6 answers at once"),
        ({"logit_bias": {"257": 1}}, "BadRequestError", None, "logit_bias has token 257"),
        ({"extra_body": {"tools": [1]}}, "BadRequestError", "unsupported_parameter", "not supported: tools"),
        ({"prompt": ["a"] * 207}, "BadRequestError", None, "207 answers in one request are more than the queue's 206"),
        ({"extra_body": {"x": "a" * 5_000_000}}, "APIStatusError", "request_too_large", "longer than 4194304 bytes"),
    ],
)
def test_refusals_have_openais_shape(fields, error, code, message, client):
    with pytest.raises(getattr(openai, error), match=re.escape(message)) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "a", **fields})
    assert caught.value.code == code


def test_a_generator_does_not_embed(client):
    with pytest.raises(openai.BadRequestError, match="tiny writes text; vectors come from an encoder"):
        client.embeddings.create(model="tiny", input="a")


def test_what_is_not_asked_by_the_client(client):
    at = str(client.base_url).removesuffix("/v1/")
    with httpx.Client(base_url=at) as raw:
        assert raw.get("/health").json() == {"status": "ok", "model": "tiny", "load": 0}
        assert raw.get("/v1/models/tiny").json()["id"] == "tiny"
        for response, status in [
            (raw.get("/v1/nothing"), 404),
            (raw.get("/v1/completions"), 405),
            (raw.post("/v1/completions", content=b"{}"), 415),
            (raw.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"}), 400),
            (raw.get("/v1/models/other"), 404),
        ]:
            assert response.status_code == status
            assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert [one.id for one in client.models.list()] == ["tiny"]


def test_a_key_is_asked_for(model, tokenizer):
    with text_server(model, tokenizer, key="sésame") as (client, _):
        at = str(client.base_url)
        with httpx.Client(base_url=at) as raw:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sésame".encode()}):
                response = raw.get("models", headers=given)
                assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
                assert raw.post("completions", json={}, headers=given).status_code == 401
            right = {"Authorization": "Bearer sésame".encode()}
            assert raw.get("models", headers=right).status_code == 200


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


def test_an_encoder_embeds(tmp_path):
    from minilm.serving.embeddings import EmbeddingService

    Tokenizer.byte(["[PAD]"]).save(tmp_path)
    config = BertConfig(
        vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3, pad_token_id=256,
    )  # fmt: skip
    Bert(config, Generator(0)).save_pretrained(tmp_path)
    embedder = SentenceEmbedder.from_pretrained(tmp_path)
    texts = ["a first text", "你好", "the last"]
    expected = embedder(texts)
    service = EmbeddingService("bert", embedder)
    with served(service, hosts=["127.0.0.1"]) as at, ask_of(at) as client:
        refused = httpx.get(f"{at}/v1/models", headers={"Host": "elsewhere.org"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")
        found = client.embeddings.create(model="bert", input=texts)  # the client asks for base64
        np.testing.assert_allclose([one.embedding for one in found.data], expected, atol=1e-6)
        assert found.usage.prompt_tokens == sum(len(text.encode()) for text in texts)
        for form in ("float", "base64"):
            one = (
                client.embeddings.create(model="bert", input=[*b"a first text"], encoding_format=form).data[0].embedding
            )
            one = np.frombuffer(base64.b64decode(one), "<f4") if form == "base64" else one
            np.testing.assert_allclose(one, expected[0], atol=1e-6)
        for fields, message in [
            ({"input": "a" * 65}, "input 0 has 65 tokens; this model takes 1 to 64"),
            ({"input": ["a", ""]}, "input 1 has 0 tokens"),
            ({"input": [300]}, "input 0 has tokens beyond 0 to 256"),
            ({"input": "a", "dimensions": 8}, "dimensions is 8; this model's vectors have 16"),
        ]:
            with pytest.raises(openai.BadRequestError, match=message):
                client.embeddings.create(model="bert", **fields)
        with pytest.raises(openai.BadRequestError, match="bert is an encoder, which writes no text"):
            client.completions.create(model="bert", prompt="a")
        assert httpx.get(f"{at}/health").json()["load"] == 0
        service.close()
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.embeddings.create(model="bert", input="a")


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
