"""Batches as arrays: padding, truncation, pairs, offsets, against transformers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from minilm.tokenization import BatchEncoding, Tokenizer

pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

TEXTS = ["one", "", "日本語 😀", "a longer text with words", "x" * 40]


def framed_tokenizer():
    """Bytes, with RoBERTa's frame: <s> A </s> and <s> A </s></s> B </s>."""
    tokenizer = Tokenizer.byte(["<s>", "</s>", "<pad>"])
    template = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:1 </s>:1",
        special_tokens=[("<s>", 256), ("</s>", 257)],
    )
    tokenizer.library.post_processor = template
    tokenizer.pad_token = "<pad>"
    return tokenizer


OURS = framed_tokenizer()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    path = OURS.save(tmp_path_factory.mktemp("tokenizer"))
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="<pad>")


def same(theirs, *texts, **options):
    extra = {"return_token_type_ids": True, "return_offsets_mapping": True, "return_special_tokens_mask": True}
    if "truncation_side" in options:
        theirs.truncation_side = options["truncation_side"]
    their_options = {name: value for name, value in options.items() if name != "truncation_side"}
    expected = theirs(*texts, return_tensors="np", **extra, **their_options)
    theirs.truncation_side = "right"
    batch = OURS(*texts, **extra, **options)
    assert batch.keys() == expected.keys()
    for name, array in batch.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name].reshape(array.shape), err_msg=name)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 60},
        {"padding": "max_length", "max_length": 60, "pad_to_multiple_of": 16},
        {"padding": "max_length", "max_length": 12, "truncation": True},
        {"padding": True, "max_length": 8, "truncation": True, "pad_to_multiple_of": 4},
        {"padding": True, "add_special_tokens": False},
    ],
    ids=str,
)
def test_padding(theirs, options, side):
    same(theirs, TEXTS, padding_side=side, **options)
    same(theirs, TEXTS, TEXTS[::-1], padding_side=side, **options)


@settings(deadline=None, max_examples=300)
@given(
    first=st.integers(0, 12),
    second=st.one_of(st.none(), st.integers(0, 12)),
    limit=st.integers(4, 30),
    strategy=st.sampled_from([True, "longest_first", "only_first", "only_second"]),
    side=st.sampled_from(["left", "right"]),
    special=st.booleans(),
)
def test_truncation(theirs, first, second, limit, strategy, side, special):
    texts = [["abcdefghijkl"[:first]]] if second is None else [["abcdefghijkl"[:first]], ["mnopqrstuvwx"[:second]]]
    around = (2 if second is None else 4) if special else 0
    excess, cut = first + (second or 0) + around - limit, (second or 0) if strategy == "only_second" else first
    if strategy in ("only_first", "only_second") and excess > 0:
        if cut < excess:
            with pytest.raises(ValueError, match=rf"can't bring texts of {first} and {second or 0} tokens down to"):
                OURS(*texts, truncation=strategy, max_length=limit, add_special_tokens=special)
            return
        if cut == excess:
            return  # transformers refuses to leave nothing of a text; here it may be empty
    options = {"truncation": strategy, "max_length": limit, "add_special_tokens": special}
    same(theirs, *texts, truncation_side=side, **options)


def test_offsets_point_into_the_text():
    text = "né 日本"
    batch = OURS(text, return_offsets_mapping=True)
    spans = batch.offset_mapping[0, 1:-1].tolist()
    assert "".join(dict.fromkeys(text[start:end] for start, end in spans)) == text
    assert batch.offset_mapping.shape == (1, 2 + len(text.encode()), 2)


def test_batch_is_a_mapping_with_attributes():
    batch = OURS("a", "b", return_token_type_ids=True)
    assert isinstance(batch, BatchEncoding)
    assert (lambda input_ids, attention_mask, token_type_ids: input_ids)(**batch) is batch.input_ids
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1]]
    with pytest.raises(AttributeError, match="has input_ids, attention_mask, token_type_ids, and no labels"):
        _ = batch.labels


def test_an_empty_batch_has_the_right_shapes():
    batch = OURS([], padding=True, return_offsets_mapping=True)
    assert batch.input_ids.shape == (0, 0)
    assert batch.offset_mapping.shape == (0, 0, 2)


def test_decoder_only_models_are_padded_with_their_end():
    tokenizer = Tokenizer.byte(["<|endoftext|>"])
    with pytest.raises(ValueError, match=r"set one .* tokenizer\.pad_token = tokenizer\.eos_token"):
        tokenizer(["a", "bc"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    assert tokenizer(["a", "bc"], padding=True).input_ids.tolist() == [[256, 97], [98, 99]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((["a", "bc"],), {}, ValueError, "from 3 to 4 tokens, which makes no array: pass padding=True"),
        (("a",), {"padding": "most"}, ValueError, "padding is True, False"),
        (("a",), {"truncation": "both"}, ValueError, "truncation is True, False"),
        (("a",), {"truncation": True}, ValueError, "truncation needs max_length"),
        (("a",), {"padding": "max_length"}, ValueError, "padding='max_length' needs max_length"),
        (
            ("abc",),
            {"padding": "max_length", "max_length": 4},
            ValueError,
            "5 tokens, more than max_length=4: pass trunc",
        ),
        (
            ("a",),
            {"max_length": 9, "truncation": True, "padding": True, "pad_to_multiple_of": 2},
            ValueError,
            "multiple",
        ),
        (("a",), {"max_length": 4}, ValueError, "max_length does nothing alone"),
        (("a",), {"max_length": 0, "truncation": True}, ValueError, "expected at least 1"),
        (("abc",), {"max_length": 1, "truncation": True}, ValueError, "the special tokens alone are 2"),
        (("a",), {"padding": True, "padding_side": "top"}, ValueError, "padding_side is 'top'"),
        (("a",), {"truncation_side": "top"}, ValueError, "truncation_side is 'top'"),
        (("a",), {"pad_to_multiple_of": 8}, ValueError, "and padding"),
        (("a",), {"padding": True, "pad_to_multiple_of": 0}, ValueError, "positive number"),
        (("a", ["b"]), {}, TypeError, "both one text, or both as many"),
        ((["a", "b"], ["c"]), {"padding": True}, ValueError, "second text for each of the 2 texts, got 1"),
        (([b"a"],), {}, TypeError, "expected text to encode, a str, got bytes"),
        (("a\ud800",), {}, ValueError, "surrogates not allowed"),
        (("a",), {"return_tensors": "np"}, TypeError, "return_tensors"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, says):
    with pytest.raises(error, match=says):
        OURS(*arguments, **options)
