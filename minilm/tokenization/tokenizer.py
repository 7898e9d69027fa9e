"""The tokenizer: text to ids and back, exactly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from minilm.tokenization.byte_level import token_to_bytes
from minilm.tokenization.end_of_text import END_OF_TEXT, find_eos
from minilm.tokenization.models import bpe_model, byte_model, char_model, tokenizers_library

__all__ = ["Tokenizer"]


class Tokenizer:
    """Turns text into token ids and ids into text; wraps a `tokenizers.Tokenizer`, at hand as `.library`.

    Made by `Tokenizer.char`, `.byte`, `.train_bpe` or `.from_file`. Byte and BPE tokenizers give every Unicode text
    back exactly, line ends, NULs and leading spaces included; a character tokenizer refuses text with a character that
    it does not know. Truncation and padding of a loaded file are turned off: they would silently cut a corpus.

    `encode_batch` works on all cores (the environment variable TOKENIZERS_PARALLELISM=false turns that off, which the
    library also asks for before a process that has encoded forks).

    >>> tokenizer = Tokenizer.byte()
    >>> tokenizer.encode("hé").tolist()
    [104, 195, 169]
    >>> tokenizer.decode([104, 195, 169])
    'hé'
    """

    def __init__(self, library, eos_token: str | None = None):
        library.no_truncation()
        library.no_padding()
        self.library = library
        self.eos_token = eos_token
        self.eos_token_id = None if eos_token is None else library.token_to_id(eos_token)
        if eos_token is not None and self.eos_token_id is None:
            raise ValueError(f"the end-of-text token {eos_token!r} is not in the vocabulary; name one that is")

    # -- making one ---------------------------------------------------------------------------------------------------

    @classmethod
    def char(cls, texts: str | Iterable[str], special_tokens: Sequence[str] = ()) -> Tokenizer:
        """One token a character: the sorted set of those in `texts`, ids in order of code point, as nanoGPT has it.

        Special tokens, if any, take the ids after the characters; the first of them is the end-of-text token.

        >>> Tokenizer.char("hello").encode("hole").tolist()
        [1, 3, 2, 0]
        """
        return cls(char_model(_pieces(texts), special_tokens), *special_tokens[:1])

    @classmethod
    def byte(cls, special_tokens: Sequence[str] = ()) -> Tokenizer:
        """One token a byte of the text's UTF-8: 256 tokens, each id the byte itself; special tokens start at 256."""
        return cls(byte_model(special_tokens), *special_tokens[:1])

    @classmethod
    def train_bpe(
        cls, texts: str | Iterable[str], vocab_size: int, special_tokens: Sequence[str] = (END_OF_TEXT,)
    ) -> Tokenizer:
        """Byte-level byte-pair encoding trained on `texts` (Sennrich et al. 2016), as in GPT-2 (Radford et al. 2019).

        Special tokens take the first ids (the first of them is the end-of-text token), then come the 256 bytes, then
        the merges in the order learned. A text with too few repeated pairs gives fewer than `vocab_size` tokens.

        >>> tokenizer = Tokenizer.train_bpe("low lower lowest " * 10, vocab_size=262)
        >>> [tokenizer.decode([i]) for i in tokenizer.encode("low lower")]
        ['low', ' lowe', 'r']
        """
        return cls(bpe_model(_pieces(texts), vocab_size, special_tokens), *special_tokens[:1])

    @classmethod
    def from_file(cls, path: str | os.PathLike, eos_token: str | None = None) -> Tokenizer:
        """Loads a `tokenizer.json` (or the one in the folder `path`), whoever made it.

        The end-of-text token is `eos_token` if given, else what a `tokenizer_config.json` beside the file says, else
        the first of the usual names that is in the vocabulary, else the only special token there is, else None.
        """
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"no tokenizer file at {path}: expected a tokenizer.json or a folder that holds one"
            )
        loaded = tokenizers_library().Tokenizer
        try:
            library = loaded.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(
                f"{path} is not a tokenizer.json of the tokenizers library ({error}); "
                "save one with Tokenizer.save, or transformers' tokenizer.save_pretrained"
            ) from error
        return cls(library, eos_token or find_eos(library, path.parent))

    def save(self, path: str | os.PathLike) -> Path:
        """Writes `tokenizer.json` (into `path`, if that is a folder) all at once, and returns the file's path."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            aside.write_text(self.library.to_str(pretty=True), encoding="utf-8")
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        return path

    # -- using it -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, add_special_tokens: bool = False) -> np.ndarray:
        """The ids of `text`, int64, shape (T,).

        A special token written out in the text becomes that token. `add_special_tokens` adds what a loaded file's
        template puts around a text (Llama's begin-of-text, BERT's [CLS] and [SEP]).
        """
        return self.encode_batch([text], add_special_tokens=add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[np.ndarray]:
        """The ids of each text, in parallel; one int64 array a text."""
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"expected text to encode, a str, got {type(text).__name__}")
            if self._alphabet is not None:
                self._check_characters(text)
        try:
            encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except TypeError:
            for text in texts:  # a lone surrogate is the one str that the library can't take: name it and its place
                text.encode("utf-8")
            raise
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids, *, skip_special_tokens: bool = False) -> str:
        """The text of `ids`; what is not UTF-8 becomes U+FFFD, and an id outside the vocabulary is a ValueError."""
        return self.library.decode(self.check_ids(ids), skip_special_tokens=skip_special_tokens)

    def check_ids(self, ids) -> list[int]:
        """`ids` as a list of Python ints; ValueError if one is outside the vocabulary."""
        array = np.asarray(ids)
        if array.size == 0:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"expected a flat sequence of integer ids, got {array.dtype} of shape {array.shape}")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(f"id {wrong} is not in the vocabulary: ids go from 0 to {self.vocab_size - 1}")
        return array.tolist()

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: what a model's embedding must have at least."""
        return max(self.library.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return self.vocab_size

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as it is written in the vocabulary, None if it is not there."""
        return self.library.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """The token of an id as it is written in the vocabulary, None if there is none."""
        return self.library.id_to_token(index)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the special tokens, those that `skip_special_tokens` leaves out."""
        return frozenset(i for i, token in self.library.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that decides which ids a text gets; the same after saving and loading."""
        spec = self._specification
        merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in spec["model"].get("merges", ())]
        decisive = {
            "model": {**spec["model"], "merges": merges},
            "added_tokens": spec["added_tokens"],
            "normalizer": spec["normalizer"],
            "pre_tokenizer": spec["pre_tokenizer"],
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode("utf-8")).hexdigest()

    @cached_property
    def token_bytes(self) -> list[bytes] | None:
        """The bytes of each id, where decoding is joining them (byte-level and character tokenizers); else None."""
        decoder = (self._specification["decoder"] or {}).get("type")
        to_bytes = {"ByteLevel": token_to_bytes, "Fuse": lambda token: token.encode("utf-8")}.get(decoder)
        if to_bytes is None:
            return None
        return [to_bytes(self.library.id_to_token(index) or "") for index in range(self.vocab_size)]

    def __repr__(self) -> str:
        kind = self._specification["model"].get("type", "unknown model")
        return f"Tokenizer({kind}, vocab_size={self.vocab_size}, eos_token={self.eos_token!r}, {self.digest[:12]})"

    @cached_property
    def _specification(self) -> dict:
        return json.loads(self.library.to_str())

    @cached_property
    def _alphabet(self) -> frozenset[str] | None:
        """What a character tokenizer knows (the library drops any other character in silence); None for other kinds."""
        spec, model = self._specification, self._specification["model"]
        bare = spec["normalizer"] is None and spec["pre_tokenizer"] is None
        if (
            not bare
            or model.get("type") != "BPE"
            or model["merges"]
            or model.get("unk_token")
            or model.get("byte_fallback")
        ):
            return None
        return frozenset(token for token in model["vocab"] if len(token) == 1)

    def _check_characters(self, text: str) -> None:
        if self._alphabet.issuperset(text):
            return
        for token in self.library.get_added_tokens_decoder().values():
            text = text.replace(token.content, "")
        unknown = sorted(set(text) - self._alphabet)
        if unknown:
            first = unknown[0]
            raise ValueError(
                f"{len(unknown)} of the text's characters are not in this tokenizer's {len(self._alphabet)}, the first "
                f"{first!r} (U+{ord(first):04X}); make the tokenizer from text that has them, or use 'byte' or 'bpe'"
            )


def _pieces(texts: str | Iterable[str]) -> Iterable[str]:
    return [texts] if isinstance(texts, str) else texts
