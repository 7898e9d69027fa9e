"""Answers as text while they grow: never half a character, nothing of a stop string, each token where it begins."""

import hypothesis
import pytest
from hypothesis import strategies as st

from minilm.generation.batching import Token
from minilm.serving.text import AnswerText
from minilm.tokenization import StopFinder, Tokenizer

BYTES = Tokenizer.byte(["<|end|>"])


def answer(tokens, *stops, logprobs=False, reason="length"):
    """The pieces of an answer whose tokens come one by one, and how many of them were taken."""
    pieces = []
    listener = AnswerText(BYTES, pieces.append, 3, stops, logprobs)
    for n, token in enumerate(tokens, 1):
        if listener.token(Token(token, -0.5)):
            listener.end("stop")
            return pieces, n
    listener.end(reason)
    return pieces, len(tokens)


@hypothesis.given(
    st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.integers(1, 4)
)
def test_a_text_passes_up_to_the_first_stop_string(text, stops, width):
    finder, passed = StopFinder(stops), ""
    for start in range(0, len(text), width):
        passed += finder.push(text[start : start + width])
        seen = text[: start + width]
        places = [seen.find(stop) for stop in stops if stop in seen]
        assert finder.stopped == bool(places)
        if places:
            assert passed == seen[: min(places)]
            return
        # As much is held back as the beginning of a stop string may be, and no more.
        held = seen[len(passed) :]
        assert seen.startswith(passed)
        assert not held or any(stop.startswith(held) for stop in stops)
    assert passed + finder.finish() == text


def test_the_classic_trap():
    pieces, n = answer(b"aaab and", "aab")
    assert ("".join(piece.text for piece in pieces), n) == ("a", 4)
    assert pieces[-1].finish_reason == "stop"
    assert pieces[-1].n_tokens == 4


def test_pieces_hold_whole_characters():
    text = "né 中文 👩‍👩‍👧 end"
    pieces, _ = answer(text.encode())
    assert "".join(piece.text for piece in pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece.text for piece in pieces)
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert {piece.index for piece in pieces} == {3}


def test_an_unfinished_character_is_told_at_the_end():
    pieces, _ = answer("né".encode()[:-1])
    assert [piece.text for piece in pieces] == ["n", "\N{REPLACEMENT CHARACTER}"]


def test_what_was_held_back_comes_at_the_end():
    pieces, _ = answer(b"the e", "end", reason="stop")
    assert [piece.text for piece in pieces] == ["t", "h", "e ", "e"]


def test_special_tokens_are_no_text():
    pieces, _ = answer([*b"a", 256, *b"b"])
    assert "".join(piece.text for piece in pieces) == "ab"
    assert pieces[-1].n_tokens == 3


def test_a_token_that_the_tokenizer_does_not_know_is_no_text():
    pieces, _ = answer([*b"a", 300])
    assert "".join(piece.text for piece in pieces) == "a"


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_each_token_comes_with_the_piece_that_it_begins_in(reason):
    pieces, _ = answer("aé中b".encode(), logprobs=True, reason=reason)
    found = [(piece.text, [one.offset for one in piece.tokens]) for piece in pieces]
    assert found == [("a", [0]), ("é", [1, 1]), ("中", [2, 2, 2]), ("b", [3]), ("", [])]


def test_tokens_of_a_stop_string_are_in_no_piece():
    pieces, n = answer(b"ab<stop>", "<stop>", logprobs=True)
    assert n == 8
    assert [one.token.id for piece in pieces for one in piece.tokens] == list(b"ab")


def test_an_error_ends_an_answer():
    pieces = []
    AnswerText(BYTES, pieces.append).fail(MemoryError("no room"))
    assert [str(piece.error) for piece in pieces] == ["no room"]
    assert pieces[0].last
