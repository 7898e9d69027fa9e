"""Streaming decoding: whole characters only, and joined exactly what decoding at once gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tokenization import StreamDecoder, Tokenizer

BYTE = Tokenizer.byte(special_tokens=["<|endoftext|>", "<a b>"])
BPE = Tokenizer.train_bpe("naïve café 👩‍👩‍👧 déjà vu, 日本語 日本 " * 30, vocab_size=330)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def streamed(tokenizer, ids, **settings):
    decoder = StreamDecoder(tokenizer, **settings)
    return [decoder.push(index) for index in ids] + [decoder.finish()]


@settings(deadline=None)
@given(st.text())
def test_pieces_are_whole_characters(text):
    for tokenizer in (BYTE, BPE):
        pieces = streamed(tokenizer, tokenizer.encode(text))
        assert "".join(pieces) == text
        assert REPLACEMENT in text or REPLACEMENT not in "".join(pieces)


@settings(deadline=None)
@given(st.lists(st.integers(0, 257)), st.booleans())
def test_any_ids_give_what_decoding_at_once_gives(ids, skip):
    for tokenizer in (BYTE, BPE):
        expected = tokenizer.decode(ids, skip_special_tokens=skip)
        assert "".join(streamed(tokenizer, ids, skip_special_tokens=skip)) == expected


def test_a_character_is_shown_when_its_last_byte_comes():
    assert streamed(BYTE, "é€😀".encode()) == ["", "é", "", "", "€", "", "", "", "😀", ""]
    assert streamed(BYTE, b"a\xe2\x82") == ["a", "", "", REPLACEMENT]
    assert streamed(BYTE, b"\xe2A") == ["", REPLACEMENT + "A", ""]


def test_decoder_starts_afresh_after_finish():
    decoder = StreamDecoder(BYTE)
    assert [decoder.push(0xE2), decoder.finish(), decoder.push(ord("x")), decoder.finish()] == [
        "",
        REPLACEMENT,
        "x",
        "",
    ]


def test_an_id_outside_the_vocabulary_is_an_error():
    for wrong in (-1, 258):
        with pytest.raises(ValueError, match=f"id {wrong} is not in the vocabulary: ids go from 0 to 257"):
            StreamDecoder(BYTE).push(wrong)


def sentencepiece_style() -> Tokenizer:
    """A tokenizer as Llama's: the mark U+2581 for a space, and bytes for characters that are not in the vocabulary."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers

    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh", "ab", "▁a", "▁ab"]
    merges = [("a", "b"), ("▁", "a"), ("▁", "ab")]
    library = Library(
        models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(library)


@settings(deadline=None)
@given(st.text(alphabet="abcdefgh é日😀"))
def test_sentencepiece_style_is_streamed_in_windows(text):
    tokenizer = sentencepiece_style()
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert REPLACEMENT not in "".join(pieces)


def test_windows_stay_short():
    """Ids that never make a character are shown after a few, not held (and decoded again) for ever."""
    tokenizer = sentencepiece_style()
    decoder = StreamDecoder(tokenizer)
    broken = tokenizer.token_to_id("<0xE2>")
    pieces = [decoder.push(broken) for _ in range(40)]
    assert len("".join(pieces)) == 40
    assert all(len(piece) <= 4 for piece in pieces)
