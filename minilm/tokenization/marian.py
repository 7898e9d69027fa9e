"""Marian's tokenizer: SentencePiece for the source and for the target, and one vocab.json that numbers the pieces.

The pieces of a file are cut by the sentencepiece library, but their ids are those of vocab.json; one that is not there
is the unknown token. `MarianLibrary` answers to the calls that `Tokenizer` makes of a `tokenizers.Tokenizer`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from minilm.tokenization.pieces import MARK
from minilm.tokenization.protobuf import protobuf_fields
from minilm.tokenization.sentencepiece_files import load_processor
from minilm.tokenization.settings import TokenizerSettings, read_json

__all__ = ["MarianLibrary", "marian_library"]

_LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)
_DEFAULTS = {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}


def marian_library(folder: Path, settings: TokenizerSettings) -> MarianLibrary:
    """The source side of a folder with source.spm, target.spm and vocab.json; its `.target` is the other side."""
    settings.special_tokens = named = {**_DEFAULTS, **settings.special_tokens}
    settings.max_length = settings.max_length or 512
    names = ["vocab.json", "vocab.json"]
    if settings.config.get("separate_vocabs"):
        names[1] = "target_vocab.json"
    source, target = (
        MarianLibrary(load_processor(folder / file), read_json(folder / name, dict), named, folder / name)
        for file, name in zip(("source.spm", "target.spm"), names)
    )
    source.target = target
    if names[0] != names[1]:  # ids are then the target's wherever a model wrote them
        source.reader = target
    return source


@dataclass
class _Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]
    type_ids: list[int]
    sequence_ids: list[int | None]


class MarianLibrary:
    """One side: a processor that cuts text into pieces, and the ids of the pieces."""

    def __init__(self, processor, vocabulary: dict[str, int], named: dict[str, str], path: Path):
        wrong = [token for token, index in vocabulary.items() if type(index) is not int or not 0 <= index < 2**31]
        if wrong or any(token not in vocabulary for token in (named["unk"], named["eos"])):
            what = f"the id of {wrong[0]!r} is {vocabulary[wrong[0]]!r}" if wrong else "it lacks one of these"
            raise ValueError(
                f"{path}: expected an id for each piece, {named['unk']!r} and {named['eos']!r} among them, and {what}; "
                "take vocab.json, source.spm and target.spm from one model"
            )
        self.processor, self.vocabulary = processor, dict(vocabulary)
        self.pieces = {index: piece for piece, index in vocabulary.items()}
        self.unknown, self.end = vocabulary[named["unk"]], vocabulary[named["eos"]]
        self.added: dict[int, object] = {}
        self.target: MarianLibrary = self
        self.reader: MarianLibrary = self

    # -- the calls of a tokenizers.Tokenizer --------------------------------------------------------------------------

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def token_to_id(self, token: str) -> int | None:
        return self.vocabulary.get(token)

    def id_to_token(self, index: int) -> str | None:
        return self.reader.pieces.get(index)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        return {**self.reader.vocabulary, **self.vocabulary}

    def get_added_tokens_decoder(self) -> dict[int, object]:
        return dict(self.added)

    def add_tokens(self, tokens) -> int:
        """Adds tokens that a text is split at before SentencePiece sees it; new ones get the next ids."""
        for token in tokens:
            for side in {id(self): self, id(self.target): self.target}.values():
                index = side.vocabulary.setdefault(token.content, max(side.vocabulary.values()) + 1)
                side.pieces[index] = token.content
                side.added[index] = token
        return len(tokens)

    add_special_tokens = add_tokens

    def encode_batch(self, texts, add_special_tokens: bool = True) -> list[_Encoding]:
        return [self._encode(text, add_special_tokens) for text in texts]

    encode_batch_fast = encode_batch

    def decode(self, ids, skip_special_tokens: bool = True) -> str:
        text, run = "", []
        reader = self.reader
        for index in ids:
            if index in reader.added:
                if not skip_special_tokens:
                    text += reader._joined(run) + reader.pieces[index] + " "
                    run = []
            else:
                run.append(reader.pieces.get(index) or "")
        return (text + reader._joined(run)).replace(MARK, " ").strip()

    def to_str(self, pretty: bool = False) -> str:
        """All that decides the ids, as JSON; no file that the tokenizers library reads."""
        model = {"type": "Marian", "vocab": self.vocabulary, "pieces": self.processor.serialized_model_proto().hex()}
        added = [{"id": index, "content": token.content} for index, token in sorted(self.added.items())]
        parts = {"model": model, "added_tokens": added, "normalizer": None, "pre_tokenizer": None, "decoder": None}
        return json.dumps(parts, indent=2 if pretty else None)

    def save_files(self, folder: Path) -> None:
        """Writes source.spm, target.spm and vocab.json (and target_vocab.json, if the target has its own)."""
        sides = {"source.spm": self, "target.spm": self.target}
        for name, side in sides.items():
            (folder / name).write_bytes(side.processor.serialized_model_proto())
        vocabularies = {"vocab.json": self.vocabulary}
        if self.reader is not self:
            vocabularies["target_vocab.json"] = self.target.vocabulary
        for name, vocabulary in vocabularies.items():
            (folder / name).write_text(json.dumps(vocabulary, ensure_ascii=False, indent=2), encoding="utf-8")

    # -----------------------------------------------------------------------------------------------------------------

    def _encode(self, text, add_special_tokens: bool) -> _Encoding:
        ids, offsets, sequences = [], [], []
        for number, one in enumerate(text if isinstance(text, tuple) else (text,)):
            for index, start, end in self._pieces(one):
                ids.append(index)
                offsets.append((start, end))
                sequences.append(number)
        if add_special_tokens:  # one end for a pair too, as transformers has it
            ids.append(self.end)
            offsets.append((0, 0))
            sequences.append(None)
        return _Encoding(ids, offsets, [0] * len(ids), sequences)

    def _pieces(self, text: str):
        """(id, start, end) for each piece, the places in characters of `text`."""
        contents = sorted((token.content for token in self.added.values()), key=len, reverse=True)
        split = re.split(f"({'|'.join(map(re.escape, contents))})", text) if contents else [text]
        at = 0
        for number, part in enumerate(split):
            if number % 2:
                yield self.vocabulary[part], at, at + len(part)
            else:
                language = _LANGUAGE.match(part)  # >>fra<< names the language to translate into
                skipped = language.end() if language else 0
                if language:
                    yield self.vocabulary.get(language.group(), self.unknown), at, at + skipped
                for piece, start, end in self._cut(part[skipped:]):
                    yield self.vocabulary.get(piece, self.unknown), at + skipped + start, at + skipped + end
            at += len(part)

    def _cut(self, text: str):
        """(piece, start, end) as SentencePiece cuts a text; it counts places in bytes, and here they are characters."""
        places = [place for place, character in enumerate(text) for _ in character.encode("utf-8")]
        places.append(len(text))
        for number, message in protobuf_fields(self.processor.encode(text, out_type="serialized_proto")):
            if number == 2:
                piece = dict(protobuf_fields(message))
                yield piece[1].decode("utf-8"), places[piece.get(4, 0)], places[piece.get(5, 0)]

    def _joined(self, pieces: list[str]) -> str:
        return self.processor.decode_pieces(pieces) if pieces else ""
