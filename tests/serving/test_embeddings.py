"""The server's vectors, as OpenAI's own client asks for them."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from serving_client import ask_of, httpx, openai, served

from minilm.backend import Generator
from minilm.models import Bert, BertConfig
from minilm.models.sentence import SentenceEmbedder
from minilm.tokenization import Tokenizer


def test_a_generator_does_not_embed(client):
    with pytest.raises(openai.BadRequestError, match="tiny writes text; vectors come from an encoder"):
        client.embeddings.create(model="tiny", input="a")


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
