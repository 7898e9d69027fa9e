"""Requests of OpenAI's API: what is taken as what, and that nothing is ignored."""

import pytest

from minilm.generation import SamplingOptions
from minilm.serving.errors import ApiError
from minilm.serving.fields import Fields, read_json
from minilm.serving.protocol import chat_request, completion_request, embedding_request

MESSAGES = [{"role": "user", "content": "hello"}]
PARSE = {
    "completion": (completion_request, {"model": "m", "prompt": "a"}),
    "chat": (chat_request, {"model": "m", "messages": MESSAGES}),
    "embedding": (embedding_request, {"model": "m", "input": "a"}),
}


def parsed(kind, **fields):
    parse, least = PARSE[kind]
    return parse(Fields({**least, **fields}))


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_what_is_left_out_has_openais_defaults(kind):
    decoding = parsed(kind).decoding
    assert decoding.sampling == SamplingOptions(do_sample=True)
    assert decoding.max_tokens == (16 if kind == "completion" else None)
    assert (decoding.n, decoding.stop, decoding.logit_bias, decoding.top_logprobs) == (1, (), {}, None)
    assert (decoding.stream, decoding.include_usage) == (False, False)
    assert parsed(kind).decoding.seed != decoding.seed  # a fresh one


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_what_is_given_is_taken(kind):
    decoding = parsed(
        kind, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.2, seed=5, n=3, stop=["a", "bc"],
        frequency_penalty=-1, presence_penalty=0.5, logit_bias={"12": -100}, max_tokens=9, stream=True,
        stream_options={"include_usage": True}, user="me",
    ).decoding  # fmt: skip
    assert decoding.sampling == SamplingOptions(
        do_sample=True, temperature=0.5, top_k=7, top_p=0.9, min_p=0.1, repetition_penalty=1.2
    )
    assert (decoding.seed, decoding.n, decoding.stop, decoding.max_tokens) == (5, 3, ("a", "bc"), 9)
    assert (decoding.frequency_penalty, decoding.presence_penalty) == (-1, 0.5)
    assert (decoding.logit_bias, decoding.stream, decoding.include_usage) == ({12: -100}, True, True)


def test_temperature_0_is_greedy():
    assert parsed("chat", temperature=0, top_p=0.5, top_k=3).decoding.sampling == SamplingOptions()


def test_null_is_as_good_as_absent():
    assert parsed("chat", tools=None, nonsense=None, stop=None, temperature=None).decoding.stop == ()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_and_inputs_come_in_four_forms(prompt, expected):
    assert parsed("completion", prompt=prompt).prompts == expected
    assert parsed("embedding", input=prompt).inputs == expected


def test_a_message_may_come_in_parts():
    content = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert parsed("chat", messages=[{"role": "user", "content": content}]).messages == MESSAGES
    (message,) = parsed("chat", messages=[{"role": "developer", "name": "x", "content": "be brief"}]).messages
    assert message == {"role": "system", "content": "be brief", "name": "x"}


@pytest.mark.parametrize(
    "neutral",
    [{"response_format": {"type": "text"}}, {"tools": []}, {"tool_choice": "none"}, {"store": False}, {"suffix": ""}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_changes_nothing_may_be_said(neutral):
    assert parsed("chat", **neutral) is not None


@pytest.mark.parametrize(
    ("kind", "fields", "param", "message"),
    [
        ("chat", {"tools": [{"type": "function"}], "audio": {}}, "tools", "not supported: tools, audio; leave it out"),
        ("chat", {"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ("completion", {"suffix": "b"}, "suffix", "not supported: suffix"),
        ("embedding", {"temperature": 1}, "temperature", "not supported: temperature"),
        ("chat", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not supported: stream_options.x"),
        ("chat", {"stream_options": {"include_usage": True}}, "stream_options", "set stream: true"),
        ("chat", {"model": None}, "model", "model is missing"),
        ("chat", {"model": 3}, "model", "model is 3; expected a text"),
        ("chat", {"temperature": 2.5}, "temperature", "temperature is 2.5; expected a number from 0 to 2"),
        ("chat", {"temperature": "hot"}, "temperature", 'temperature is "hot"; expected a number'),
        ("chat", {"temperature": True}, "temperature", "temperature is true; expected a number"),
        ("chat", {"top_p": 0}, "top_p", "top_p is 0"),
        ("chat", {"n": 0}, "n", "n is 0; expected an integer of at least 1"),
        ("chat", {"n": 1.5}, "n", "n is 1.5; expected an integer"),
        ("chat", {"seed": -1}, "seed", "seed is -1"),
        ("chat", {"stream": "yes"}, "stream", 'stream is "yes"; expected true or false'),
        ("chat", {"stop": ["a", ""]}, "stop", "none of them empty"),
        ("chat", {"stop": [1]}, "stop", "expected a text, or up to 16"),
        ("chat", {"logit_bias": {"x": 1}}, "logit_bias.x", "an object of token ids"),
        ("chat", {"logit_bias": {"1": 101}}, "logit_bias.1", "from -100 to 100"),
        ("chat", {"logit_bias": [1]}, "logit_bias", "an object of token ids"),
        ("chat", {"top_logprobs": 2}, "top_logprobs", "top_logprobs needs logprobs: true"),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ("chat", {"logprobs": 2}, "logprobs", "logprobs is 2; expected true or false"),
        ("completion", {"logprobs": 6}, "logprobs", "from 0 to 5"),
        ("completion", {"logprobs": 1, "echo": True}, "logprobs", "echo with logprobs is not supported"),
        ("completion", {"best_of": 2}, "best_of", "best_of is 2; expected n, which is 1"),
        ("completion", {"prompt": []}, "prompt", "expected a text, a list of token ids"),
        ("completion", {"prompt": [[]]}, "prompt", "expected a text, a list of token ids"),
        ("completion", {"prompt": [1, "a"]}, "prompt", "expected a text, a list of token ids"),
        ("completion", {"prompt": [True]}, "prompt", "expected a text, a list of token ids"),
        ("completion", {"prompt": ["a"] * 2049}, "prompt", "2049 entries; expected 2048 at most"),
        ("completion", {"prompt": None}, "prompt", "prompt is null"),
        ("chat", {"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "say the same"),
        ("chat", {"max_tokens": 0}, "max_tokens", "max_tokens is 0"),
        ("chat", {"messages": []}, "messages", "expected a list of objects"),
        ("chat", {"messages": "hello"}, "messages", "expected a list of objects"),
        ("chat", {"messages": [*MESSAGES, {"role": "tool", "content": "x"}]}, "messages[1].role", 'role is "tool"'),
        ("chat", {"messages": [{"role": "user"}]}, "messages[0].content", "expected a text"),
        ("chat", {"messages": [{**MESSAGES[0], "audio": {}}]}, "messages[0].audio", "not supported: messages[0].audio"),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "text"),
        ("embedding", {"encoding_format": "int8"}, "encoding_format", 'expected "float" or "base64"'),
        ("embedding", {"dimensions": 0}, "dimensions", "dimensions is 0"),
    ],
)
def test_what_is_wrong_is_named(kind, fields, param, message):
    with pytest.raises(ApiError) as caught:
        parsed(kind, **fields)
    error = caught.value.body()["error"]
    assert (caught.value.status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b"\xff", "the body is not JSON in UTF-8"),
        (b"[1]", "the body is a JSON array; expected an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (rb'{"stop": "\ud800"}', "surrogates not allowed"),
        (rb'{"logit_bias": {"\ud800": 1}}', "surrogates not allowed"),
    ],
)
def test_what_is_no_object_of_json_is_refused(body, message):
    with pytest.raises(ApiError, match=message):
        read_json(body)


def test_a_message_can_always_be_sent():
    with pytest.raises(ApiError) as caught:
        parsed("chat", model="m", **{"\ud800": 1})
    caught.value.body()["error"]["message"].encode("utf-8")
