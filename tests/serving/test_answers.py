"""The server as OpenAI's own client sees it: many clients at once, some of which hang up."""

from __future__ import annotations

import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving_client import idle, openai

from minilm.generation.batching import Request


def offline(model, tokenizer, prompt, max_tokens, seed=None, stop=()):
    """What `generate` writes after token ids, as a text that ends before a stop string, and why it ends."""
    settings = {} if seed is None else {"do_sample": True, "seed": seed, "temperature": 0.8, "top_p": 0.9}
    ids = model.generate(prompt[None], max_tokens, **settings)[0, len(prompt) :].tolist()
    reason = "stop" if ids[-1] in (256, 84) else "length"
    text = tokenizer.decode(ids[:-1] if reason == "stop" else ids, skip_special_tokens=True)
    places = [text.find(one) for one in stop if one in text]
    return (text[: min(places)], "stop") if places else (text, reason)


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
