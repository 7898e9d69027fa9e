"""Continuous batching: whatever is computed beside it, an answer is what `generate` gives for its prompt alone."""

import numpy as np
import pytest

from minilm.backend import Generator
from minilm.generation import SamplingOptions
from minilm.generation.batching import ContinuousBatch, Request
from minilm.generation.penalties import add_bias, penalize_counts
from minilm.generation.processors import log_probabilities
from minilm.models import GPT2, GPT2Config, Llama, LlamaConfig, Mistral, MistralConfig

VOCAB, ENDS = 97, range(3, 9)
LLAMA = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": None,
}  # fmt: skip


class Heard:
    """A listener that writes down what it hears; `stop_at` is how many tokens are enough."""

    def __init__(self, stop_at=None):
        self.heard, self.reason, self.error, self.stop_at = [], None, None, stop_at

    def token(self, token):
        assert self.reason is self.error is None
        self.heard.append(token)
        return len(self.heard) == self.stop_at

    def end(self, reason):
        assert self.reason is self.error is None
        self.reason = reason

    def fail(self, error):
        assert self.reason is self.error is None
        self.error = error

    @property
    def ids(self):
        return [token.id for token in self.heard]


def family(name):
    """A small model with weights large enough that its likeliest tokens vary."""
    if name == "gpt2":
        model = GPT2(GPT2Config(vocab_size=VOCAB, n_positions=128, n_embd=24, n_layer=2, n_head=3))
    elif name == "mistral":
        model = Mistral(MistralConfig(**LLAMA, sliding_window=9))
    else:
        scaling = {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}
        model = Llama(LlamaConfig(**LLAMA, rope_parameters=scaling))
    stream = Generator(5)
    for name, parameter in model.named_parameters():
        if "norm" not in name and "ln_" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return family("llama")


def request(prompt, n=1, max_new_tokens=8, stop_at=None, **settings):
    return Request(np.asarray(prompt), [Heard(stop_at) for _ in range(n)], max_new_tokens, **settings)


def alone(model, request, index=0):
    """What `generate` gives for a request, and why it ends."""
    options, start = request.sampling, len(request.prompt)
    out = model.generate(
        request.prompt[None], request.max_new_tokens, do_sample=options.do_sample, temperature=options.temperature,
        top_k=options.top_k, top_p=options.top_p, min_p=options.min_p, repetition_penalty=options.repetition_penalty,
        seed=request.seed + index, eos_token_id=list(request.ends),
    )[0, start:].tolist()  # fmt: skip
    return (out[:-1], "stop") if out[-1] in request.ends else (out, "length")


def run(batch, limit=2000):
    for _ in range(limit):
        if not batch.busy:
            return
        batch.step()
    raise AssertionError("the batch does not come to an end")


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_answers_are_those_of_generate_whoever_comes_and_goes(name, rng):
    model = family(name)
    batch = ContinuousBatch(model, rows=5, capacity=120, prefill_tokens=16)
    sampled = SamplingOptions(True, 1.1, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    jobs = [
        request(
            rng.integers(0, VOCAB, rng.integers(1, 70)), n=1 + (i % 7 == 1), max_new_tokens=int(rng.integers(1, 40)),
            sampling=sampled if i % 2 else SamplingOptions(), seed=i, ends=ENDS,
        )
        for i in range(25)
    ]  # fmt: skip
    cut = {}
    for i, job in enumerate(jobs):
        batch.add(job)
        batch.step()
        if i % 5 == 4:  # one that waits, is being read, or is in the middle of its answer
            batch.cancel(jobs[i - 3])
            cut[jobs[i - 3]] = [len(listener.heard) for listener in jobs[i - 3].listeners]
    run(batch)
    reasons = set()
    for job in jobs:
        for i, listener in enumerate(job.listeners):
            tokens, reason = alone(model, job, i)
            if listener.reason is None:
                assert len(listener.heard) == cut[job][i]
                assert listener.ids == tokens[: len(listener.heard)]
            else:
                assert (listener.ids, listener.reason) == (tokens, reason)
                reasons.add(reason)
    assert reasons == {"stop", "length"}
    assert sum(listener.reason is None for job in cut for listener in job.listeners) >= 4
    assert not batch.cache.lengths.any()
    assert batch.load == 0


def test_a_long_prompt_does_not_stop_others(model, rng):
    batch = ContinuousBatch(model, rows=2, prefill_tokens=4)
    first, second = request([1, 2], max_new_tokens=30), request(rng.integers(0, VOCAB, 40), max_new_tokens=2)
    batch.add(first)
    batch.step()
    batch.add(second)
    for step in range(10):
        before = len(first.listeners[0].heard)
        assert not second.listeners[0].heard, step
        batch.step()
        assert len(first.listeners[0].heard) == before + 1
    assert len(second.listeners[0].heard) == 2  # read to its end, and a token computed with the others
    run(batch)
    for job in (first, second):
        assert (job.listeners[0].ids, job.listeners[0].reason) == alone(model, job)


def test_a_request_with_several_answers_waits_for_as_many_rows(model):
    batch = ContinuousBatch(model, rows=3)
    one, three = request([1], max_new_tokens=4), request([2, 5], n=3, sampling=SamplingOptions(True), seed=7)
    batch.add(one)
    batch.add(three)
    batch.step()
    assert (len(batch.running), len(batch.waiting)) == (1, 1)
    run(batch)
    found = [listener.ids for listener in three.listeners]
    assert found == [alone(model, three, i)[0] for i in range(3)]
    assert len(set(map(tuple, found))) == 3


def test_a_listener_ends_its_answer(model):
    batch = ContinuousBatch(model, rows=2)
    job = request([1, 2, 3], n=2, max_new_tokens=20, stop_at=4, sampling=SamplingOptions(True))
    batch.add(job)
    run(batch)
    assert [(len(listener.heard), listener.reason) for listener in job.listeners] == [(4, "stop")] * 2


def test_log_probabilities_are_the_models_own(model):
    batch = ContinuousBatch(model, rows=1)
    settings = {"sampling": SamplingOptions(True, 1.5), "logit_bias": {7: 100.0}, "top_logprobs": 3}
    job = request([1, 2, 3], max_new_tokens=3, **settings)
    batch.add(job)
    run(batch)
    assert job.listeners[0].ids == [7, 7, 7]
    logits = model(np.array([[1, 2, 3, 7, 7]])).logits.data[0, 2:]
    for token, expected in zip(job.listeners[0].heard, log_probabilities(logits)):
        assert token.logprob == pytest.approx(expected[7], abs=1e-4)
        assert [id for id, _ in token.top] == np.argsort(-expected)[:3].tolist()
        assert [logprob for _, logprob in token.top] == pytest.approx(sorted(expected)[:-4:-1], abs=1e-4)


def test_penalties_and_bias_follow_the_formula():
    logits = np.arange(8.0).reshape(2, 4)
    found = penalize_counts(logits, [np.array([1, 1, 3]), np.array([], int)], 0.5, 0.25)
    np.testing.assert_array_equal(found, [[0, 1 - 1.25, 2, 3 - 0.75], [4, 5, 6, 7]])
    np.testing.assert_array_equal(add_bias(logits, {0: -100, 2: 1.5}), logits + np.array([-100, 0, 1.5, 0]))
    np.testing.assert_array_equal(logits, np.arange(8.0).reshape(2, 4))  # as it was


def test_penalties_count_new_tokens_only(model):
    batch = ContinuousBatch(model, rows=2)
    plain, other = (request([5, 6], max_new_tokens=20, presence_penalty=penalty) for penalty in (0.0, 100.0))
    batch.add(plain)
    batch.add(other)
    run(batch)
    assert plain.listeners[0].ids[0] == other.listeners[0].ids[0]
    assert len(set(other.listeners[0].ids)) == 20 > len(set(plain.listeners[0].ids))


def test_what_fails_is_told_to_all_and_leaves_nothing_behind(model, monkeypatch):
    batch = ContinuousBatch(model, rows=2)
    jobs = [request([i, 2], max_new_tokens=9) for i in range(4)]
    for job in jobs:
        batch.add(job)
    batch.step()

    def broken(*_, **__):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(type(model.model.layers[1]), "forward", broken)  # in the middle of the model
        with pytest.raises(MemoryError) as caught:
            batch.step()
    batch.fail(caught.value)
    assert [job.listeners[0].error for job in jobs] == [caught.value] * 4
    assert not batch.busy
    assert batch.load == 0
    again = request([1, 2], max_new_tokens=9)
    batch.add(again)
    run(batch)
    assert (again.listeners[0].ids, again.listeners[0].reason) == alone(model, again)


def test_a_model_that_has_come_to_grief_says_so():
    model = family("llama")
    model.lm_head.weight.data[5] = np.nan
    batch = ContinuousBatch(model, rows=1)
    job = request([1, 2])
    batch.add(job)
    run(batch)
    assert isinstance(job.listeners[0].error, FloatingPointError)
    assert not batch.cache.lengths.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [1], "max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"prompt": [1] * 120, "max_new_tokens": 9}, "the prompt's 120 tokens and 9 new ones are more than the 128"),
        ({"prompt": [1], "n": 3}, "a request has 1 to 2 answers"),
        ({"prompt": [1], "n": 0}, "a request has 1 to 2 answers"),
    ],
)
def test_requests_that_never_fit_are_refused(settings, message, model):
    with pytest.raises(ValueError, match=message):
        ContinuousBatch(model, rows=2).add(request(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "rows is how many answers"),
        ({"capacity": 129}, "capacity is 1 to 128"),
        ({"prefill_tokens": 0}, "prefill_tokens must be at least 1"),
    ],
)
def test_batches_that_make_no_sense_are_refused(settings, message, model):
    with pytest.raises(ValueError, match=message):
        ContinuousBatch(model, **settings)
