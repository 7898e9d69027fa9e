"""What the server refuses, and what else than OpenAI's client asks of it."""

from __future__ import annotations

import re

import pytest
from serving_client import httpx, openai, text_server


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
            (raw.post("/v1/completions", content=rb'{"\ud800": 1}', headers={"Content-Type": "application/json"}), 400),
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
