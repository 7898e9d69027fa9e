"""SentencePiece's two models (Kudo & Richardson 2018), built from their pieces: byte-pair encoding and unigram.

The mark U+2581 stands for a space; a character that no piece has is spelled in byte pieces `<0x00>`...`<0xFF>` where
the model has those, else it is the unknown token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from minilm.tokenization.models import library_errors, tokenizers_library

__all__ = ["PieceType", "Pieces", "add_typed_tokens", "piece_library"]

MARK = "\N{LOWER ONE EIGHTH BLOCK}"


class PieceType(IntEnum):
    """What a piece is, as SentencePiece and GGUF number it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Pieces:
    """A vocabulary in the order of its ids, and how text is made ready for it."""

    tokens: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    unigram: bool = False
    byte_fallback: bool = True
    charsmap: bytes = b""
    prefix: str = "always"  # where a space is put before a text: "always", "first" (not after a special token), "never"
    collapse_spaces: bool = False


def piece_library(pieces: Pieces, source):
    """The tokenizer of these pieces; ValueError naming `source` if they make none."""
    if not len(pieces.tokens) == len(pieces.scores) == len(pieces.types):
        raise ValueError(
            f"{source}: {len(pieces.tokens)} tokens, {len(pieces.scores)} scores and {len(pieces.types)} token types; "
            "expected as many of each: fetch the file again"
        )
    if len(set(pieces.tokens)) != len(pieces.tokens):
        twice = next(token for index, token in enumerate(pieces.tokens) if token in pieces.tokens[:index])
        raise ValueError(f"{source}: the token {twice!r} has two ids; expected one: fetch the file again")
    tk = tokenizers_library()
    unknown = next((index for index, kind in enumerate(pieces.types) if kind == PieceType.UNKNOWN), None)
    with library_errors(source):
        if pieces.unigram:
            # The shortest decimal of a float32: written to a tokenizer.json and read again, it is the same number.
            scored = [(token, float(str(np.float32(score)))) for token, score in zip(pieces.tokens, pieces.scores)]
            model = tk.models.Unigram(scored, unk_id=unknown, byte_fallback=pieces.byte_fallback)
        else:
            model = tk.models.BPE(
                {token: index for index, token in enumerate(pieces.tokens)},
                _merges(pieces),
                unk_token=None if unknown is None else pieces.tokens[unknown],
                fuse_unk=True,
                byte_fallback=pieces.byte_fallback,
            )
        library = tk.Tokenizer(model)
        normalizers = [tk.normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    if pieces.collapse_spaces:
        # A space that the text begins with is the one that would be put there: taken away, it would not be put back
        # by "first", which looks at where the text begins. (\A and \z, for ^ and $ are the ends of each line.)
        ends = r"\A +| +\z" if pieces.prefix == "never" else r" +\z"
        normalizers += [tk.normalizers.Replace(tk.Regex(pattern), by) for pattern, by in ((ends, ""), (" {2,}", " "))]
    if normalizers:
        library.normalizer = tk.normalizers.Sequence(normalizers)
    library.pre_tokenizer = tk.pre_tokenizers.Metaspace(
        replacement=MARK, prepend_scheme=pieces.prefix, split=pieces.unigram
    )
    strip = [] if pieces.prefix == "never" else [tk.decoders.Strip(" ", 1, 0)]
    library.decoder = tk.decoders.Sequence(
        [tk.decoders.Replace(MARK, " "), tk.decoders.ByteFallback(), tk.decoders.Fuse(), *strip]
    )
    add_typed_tokens(library, pieces.tokens, pieces.types)
    return library


def add_typed_tokens(library, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Makes the control tokens special and keeps the user's own whole: both are found in a text before it is split."""
    added = tokenizers_library().AddedToken
    for token, kind in zip(tokens, types):
        if kind in (PieceType.UNKNOWN, PieceType.CONTROL):
            library.add_special_tokens([added(token, special=True, normalized=False)])
        elif kind == PieceType.USER_DEFINED:
            library.add_tokens([added(token, special=False, normalized=False)])


def _merges(pieces: Pieces) -> list[tuple[str, str]]:
    """The pairs that make a longer piece, the best score first: SentencePiece merges whichever piece scores highest."""
    ids = {token: index for index, token in enumerate(pieces.tokens) if pieces.types[index] == PieceType.NORMAL}
    found = []
    for token, index in ids.items():
        score = pieces.scores[index]
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(score, pair) for pair in pairs]
    found.sort(key=lambda entry: (-entry[0], len(entry[1][0]), len(entry[1][1])))
    return [pair for _, pair in found]
