"""Where a text ends: at the tokens that end it, and at stop strings."""

from __future__ import annotations

import numpy as np

import minilm
from minilm.generation import generate
from minilm.generation.stopping import StopStrings
from minilm.tokenization import Tokenizer


def test_rows_end_at_eos_and_are_filled_up(tiny_model):
    model, ids = tiny_model("gpt2", n_positions=32), np.random.default_rng(0).integers(0, 61, (3, 5))
    free = generate(model, ids, 20)
    end = int(free[1, 9])
    out = generate(model, ids, 20, eos_token_id=end)
    for row, whole in zip(out, free):
        places = np.flatnonzero(whole[5:] == end)
        stop = 5 + places[0] + 1 if places.size else len(whole)
        np.testing.assert_array_equal(row[:stop], whole[: len(row)][:stop])
        assert (row[stop:] == end).all()  # filled with the first eos
    model.config.eos_token_id = end
    np.testing.assert_array_equal(generate(model, ids, 20), out)
    np.testing.assert_array_equal(generate(model, ids, 20, eos_token_id=[]), free)
    alone = generate(model, ids[1:2], 20, eos_token_id=[end])
    assert alone.shape[1] == 5 + np.flatnonzero(free[1, 5:] == end)[0] + 1  # nobody waits for others


class Scripted(minilm.nn.Module):
    """A model that says what it is told to, whatever the tokens."""

    max_length = 1000

    def __init__(self, script: list[list[int]], vocab_size: int, prompt: int):
        self.script, self.vocab_size, self.prompt = script, vocab_size, prompt

    def new_cache(self):
        return None

    def forward(self, ids, attention_mask=None, cache=None, logits_to_keep=0):
        logits = np.zeros((len(ids), 1, self.vocab_size), np.float32)
        for row, text in enumerate(self.script):
            place = ids.shape[1] - self.prompt
            logits[row, 0, text[place] if place < len(text) else 0] = 1
        return minilm.models.CausalLMOutput(minilm.tensor(logits))


TOKENIZER = Tokenizer.byte()


def said(texts: list[str], stop, n: int = 60) -> list[str]:
    """What rows say that are told to say `texts`, with stop strings."""
    model = Scripted([TOKENIZER.encode(text).tolist() for text in texts], 256, prompt=2)
    ids = np.full((len(texts), 2), ord("!"))
    out = generate(model, ids, n, stop_strings=stop, tokenizer=TOKENIZER)
    return [TOKENIZER.decode(row[2:]) for row in out]


def test_stop_strings_are_found_across_tokens_and_stay_in_the_text():
    assert said(["one END two"], "END") == ["one END"]
    assert said(["a\n\nb"], ["END", "\n\n"]) == ["a\n\n"]
    assert said(["né à la fin"], "à l") == ["né à l"]
    assert said(["日本語です。そして"], "。") == ["日本語です。"]
    assert said(["EN END"], "END", n=4) == ["EN E"]
    assert said(["aENDbbb", "aaaaEND"], "END") == ["aEND\0\0\0", "aaaaEND"]
    assert said(["!"], "!!", n=1) == ["!"]  # only the new text counts


def test_what_stop_strings_find_is_what_decoding_everything_finds():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abé語 \n"), 40)) for _ in range(15)]
    bpe = Tokenizer.train_bpe(" ".join(texts) * 3, vocab_size=300, special_tokens=("<|end|>",))
    for tokenizer in (TOKENIZER, bpe):
        for text in texts:
            ids = tokenizer.encode(text)
            for stop in ("ab", "語", "é a", "b語é", text[20:33], "zz"):
                watch = StopStrings(tokenizer, [stop, "never"])
                for n in range(1, len(ids) + 1):
                    expected = stop in tokenizer.decode(ids[:n])
                    assert watch.ends(ids[:n]) == expected, (text, stop, n)
                    if expected:
                        break


def test_looking_for_stop_strings_costs_the_same_at_each_token():
    decoded = []

    class Counting:
        def decode(self, ids):
            decoded.append(len(ids))
            return TOKENIZER.decode(ids)

    watch = StopStrings(Counting(), ["END", "the very end"])
    tokens = TOKENIZER.encode("語 and on " * 500)
    for n in (50, 500, len(tokens)):
        assert not watch.ends(tokens[:n])
    assert max(decoded) <= 80
