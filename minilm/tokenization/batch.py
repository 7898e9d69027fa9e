"""Texts to the arrays that a model takes: truncation, padding, masks, token types, offsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["BatchEncoding", "encode_texts"]

_TRUNCATION = ("longest_first", "only_first", "only_second")


class BatchEncoding(dict):
    """Arrays by name, each int64 with a row a text, also as attributes: `model(**batch)`, `batch.input_ids`.

    | name                | shape     |                                                              |
    | ------------------- | --------- | ------------------------------------------------------------ |
    | input_ids           | (B, T)    | padded with the padding token                                |
    | attention_mask      | (B, T)    | 1 for a token, 0 for padding                                 |
    | token_type_ids      | (B, T)    | 0 for the first text of a pair, 1 for the second             |
    | special_tokens_mask | (B, T)    | 1 for what was put around the texts, and for padding         |
    | offset_mapping      | (B, T, 2) | where each token begins and ends, in characters of its text  |

    >>> batch = BatchEncoding(input_ids=np.array([[5, 6, 0]]), attention_mask=np.array([[1, 1, 0]]))
    >>> batch.input_ids.shape, list({**batch})
    ((1, 3), ['input_ids', 'attention_mask'])
    """

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this batch has {', '.join(self)}, and no {name}") from None


def encode_texts(
    tokenizer,
    text: str | Sequence[str],
    text_pair: str | Sequence[str] | None = None,
    *,
    add_special_tokens: bool = True,
    padding: bool | str = False,
    truncation: bool | str = False,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    truncation_side: str | None = None,
    return_token_type_ids: bool | None = None,
    return_offsets_mapping: bool = False,
    return_special_tokens_mask: bool = False,
) -> BatchEncoding:
    """`Tokenizer.__call__`, which says what the arguments mean."""
    texts = _texts(tokenizer, text, text_pair)
    padding = {True: "longest", False: None, "do_not_pad": None}.get(padding, padding)
    truncation = {True: "longest_first", False: None, "do_not_truncate": None}.get(truncation, truncation)
    limit = _limit(tokenizer, padding, truncation, max_length, pad_to_multiple_of)
    encode = tokenizer.library.encode_batch if return_offsets_mapping else tokenizer.library.encode_batch_fast
    encodings = encode(texts, add_special_tokens=add_special_tokens) if texts else []
    side = _side("truncation_side", truncation_side or tokenizer.truncation_side)
    rows = [_row(encoding, limit if truncation else None, truncation, side) for encoding in encodings]
    names = ["input_ids", "attention_mask"]
    if tokenizer.uses_token_type_ids if return_token_type_ids is None else return_token_type_ids:
        names.append("token_type_ids")
    if return_special_tokens_mask:
        names.append("special_tokens_mask")
    if return_offsets_mapping:
        names.append("offset_mapping")
    side = _side("padding_side", padding_side or tokenizer.padding_side)
    width = _width([len(row["input_ids"]) for row in rows], padding, limit, pad_to_multiple_of)
    fill = dict.fromkeys(names, 0) | {"special_tokens_mask": 1, "offset_mapping": (0, 0)}
    if any(len(row["input_ids"]) < width for row in rows):
        if tokenizer.pad_token_id is None:
            raise ValueError(
                "padding needs a padding token, and this tokenizer has none: set one that is in the vocabulary, such "
                "as tokenizer.pad_token = tokenizer.eos_token"
            )
        fill["input_ids"] = tokenizer.pad_token_id
    shape = {name: (len(rows), width, 2) if name == "offset_mapping" else (len(rows), width) for name in names}
    return BatchEncoding(
        {
            name: np.array([_padded(row[name], width, fill[name], side) for row in rows], np.int64).reshape(shape[name])
            for name in names
        }
    )


def _texts(tokenizer, text, pair) -> list:
    firsts = [text] if isinstance(text, str) else list(text)
    tokenizer.check_texts(firsts)
    if pair is None:
        return firsts
    if isinstance(text, str) != isinstance(pair, str):
        raise TypeError("text and text_pair are both one text, or both as many texts; got one of each")
    seconds = [pair] if isinstance(pair, str) else list(pair)
    tokenizer.check_texts(seconds)
    if len(firsts) != len(seconds):
        raise ValueError(f"expected a second text for each of the {len(firsts)} texts, got {len(seconds)}")
    return list(zip(firsts, seconds))


def _limit(tokenizer, padding, truncation, max_length: int | None, pad_to_multiple_of: int | None) -> int | None:
    if padding not in (None, "longest", "max_length"):
        raise ValueError(f"padding is True, False, 'longest' or 'max_length'; got {padding!r}")
    if truncation is not None and truncation not in _TRUNCATION:
        raise ValueError(f"truncation is True, False, {', '.join(map(repr, _TRUNCATION))}; got {truncation!r}")
    limit = tokenizer.max_length if max_length is None else max_length
    needs = [what for what in (truncation and "truncation", padding == "max_length" and "padding='max_length'") if what]
    if needs and limit is None:
        raise ValueError(f"{needs[0]} needs max_length: this tokenizer's files name no longest input")
    if max_length is not None and not needs:
        raise ValueError("max_length does nothing alone: add truncation=True or padding='max_length'")
    if truncation and pad_to_multiple_of is not None and limit % max(pad_to_multiple_of, 1):
        raise ValueError(f"max_length={limit} is not a multiple of pad_to_multiple_of={pad_to_multiple_of}")
    if needs and limit < 1:
        raise ValueError(f"max_length is {limit}; expected at least 1")
    return limit


def _side(name: str, side: str) -> str:
    if side not in ("left", "right"):
        raise ValueError(f"{name} is {side!r}; expected 'left' or 'right'")
    return side


def _row(encoding, limit: int | None, strategy: str | None, side: str) -> dict[str, list]:
    ids, sequences = encoding.ids, encoding.sequence_ids
    row = {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "token_type_ids": encoding.type_ids,
        "special_tokens_mask": [int(sequence is None) for sequence in sequences],
        "offset_mapping": encoding.offsets,
    }
    if limit is None or len(ids) <= limit:
        return row
    # The special tokens around the texts stay: only places of the texts themselves are dropped.
    places = [[place for place, sequence in enumerate(sequences) if sequence == which] for which in (0, 1)]
    lengths = [len(places[0]), len(places[1])]
    room = limit - (len(ids) - sum(lengths))
    if room < 0:
        raise ValueError(f"max_length is {limit}, and the special tokens alone are {limit - room}: allow more")
    kept = _kept(lengths, room, strategy, pair=1 in sequences)
    dropped = set()
    for which, keep in zip(places, kept):
        dropped.update(which[keep:] if side == "right" else which[: len(which) - keep])
    return {name: [value for place, value in enumerate(row[name]) if place not in dropped] for name in row}


def _kept(lengths: list[int], room: int, strategy: str, pair: bool) -> tuple[int, int]:
    """How many tokens of each text stay, `room` in all."""
    first, second = lengths
    if strategy == "longest_first":
        if not pair:
            return min(first, room), 0
        short = min(first, second)
        long = max(short, room - short)
        if short + long > room:  # both are longer than half
            short, long = room // 2, room - room // 2
        return (short, long) if first <= second else (long, short)
    cut = 0 if strategy == "only_first" else 1
    keep = lengths[cut] - (first + second - room)
    if keep < 0 or (strategy == "only_second" and not pair):
        raise ValueError(
            f"truncation={strategy!r} can't bring texts of {first} and {second} tokens down to {room}: use "
            "'longest_first', or a larger max_length"
        )
    return (keep, second) if cut == 0 else (first, keep)


def _width(lengths: list[int], padding: str | None, limit: int | None, multiple: int | None) -> int:
    longest = max(lengths, default=0)
    if multiple is not None and (multiple < 1 or padding is None):
        raise ValueError(f"pad_to_multiple_of={multiple} needs a positive number, and padding")
    if padding is None:
        if len(set(lengths)) > 1:
            raise ValueError(
                f"the texts have from {min(lengths)} to {longest} tokens, which makes no array: pass padding=True, or "
                "use encode_batch, which gives a list"
            )
        return longest
    if padding == "max_length" and longest > limit:
        raise ValueError(f"a text has {longest} tokens, more than max_length={limit}: pass truncation=True too")
    width = limit if padding == "max_length" else longest
    return width if multiple is None else -(-width // multiple) * multiple


def _padded(values: list, width: int, fill, side: str) -> list:
    if padding := [fill] * (width - len(values)):
        return values + padding if side == "right" else padding + values
    return values
