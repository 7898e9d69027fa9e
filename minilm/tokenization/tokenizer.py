"""The tokenizer: text to ids and back, exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from minilm.files import atomic_write
from minilm.tokenization.batch import BatchEncoding, encode_texts
from minilm.tokenization.chat import choose_template, render_chat
from minilm.tokenization.end_of_text import END_OF_TEXT, find_eos
from minilm.tokenization.gguf_metadata import gguf_library
from minilm.tokenization.models import bpe_model, byte_model, char_model
from minilm.tokenization.pretrained import load_folder, load_json
from minilm.tokenization.saving import save_folder
from minilm.tokenization.settings import TokenizerSettings
from minilm.tokenization.special_tokens import NamedSpecialTokens
from minilm.tokenization.specification import check_characters, clean_up, digest, known_characters, token_bytes

__all__ = ["Tokenizer"]

_MOST_TOKENS = 10_000_000


class Tokenizer(NamedSpecialTokens):
    """Turns text into token ids and ids into text; wraps a `tokenizers.Tokenizer`, at hand as `.library`.

    Made by `Tokenizer.char`, `.byte`, `.train_bpe`, `.from_file`, or for a published model by `.from_pretrained` or
    `.from_gguf`. Byte and BPE tokenizers give every Unicode text back exactly, line ends, NULs and leading spaces
    included; a character tokenizer refuses text with a character that it does not know. Truncation and padding of a
    loaded file are turned off: they would silently cut a corpus.

    `encode_batch` works on all cores (the environment variable TOKENIZERS_PARALLELISM=false turns that off, which the
    library also asks for before a process that has encoded forks).

    >>> tokenizer = Tokenizer.byte()
    >>> tokenizer.encode("hé").tolist()
    [104, 195, 169]
    >>> tokenizer.decode([104, 195, 169])
    'hé'
    """

    def __init__(self, library, eos_token: str | None = None, settings: TokenizerSettings | None = None):
        if not hasattr(library, "no_truncation"):
            raise TypeError(
                f"a Tokenizer wraps one of the library tokenizers, not a {type(library).__name__}; "
                "Tokenizer.from_file(path) or .from_pretrained(folder) loads one"
            )
        library.no_truncation()
        library.no_padding()
        self.library = library
        self._settings = settings = settings or TokenizerSettings()
        self._named: dict[str, str | None] = {}
        for name, token in (settings.special_tokens | ({"eos": eos_token} if eos_token is not None else {})).items():
            self._set_named(name, token)
        self.chat_templates = dict(settings.chat_templates)
        self.clean_up_tokenization_spaces = settings.clean_up
        self.padding_side, self.truncation_side = settings.padding_side, settings.truncation_side
        self.max_length = settings.max_length
        self.uses_token_type_ids = settings.token_type_ids

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
        library = load_json(path)
        return cls(library, eos_token or find_eos(library, path.parent))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Tokenizer:
        """The tokenizer of a published model's folder, with its special tokens, sides and chat template.

        Read is the first of: tokenizer.json; source.spm, target.spm and vocab.json (Marian); a SentencePiece model;
        vocab.json and merges.txt (GPT-2); vocab.txt (BERT); and what stands beside it: tokenizer_config.json,
        special_tokens_map.json, added_tokens.json, chat_template.jinja. Names, ids and defaults are transformers'.
        ValueError for a damaged file names it; SentencePiece models need the extra `sentencepiece`.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: expected the folder of a model, with its tokenizer's files")
        library, settings = load_folder(folder)
        if "eos" not in settings.special_tokens and not settings.config:
            settings.special_tokens |= {"eos": eos} if (eos := find_eos(library, folder)) else {}
        return cls(library, settings=settings)

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> Tokenizer:
        """The tokenizer in a GGUF file, from its metadata: a mapping of its keys to text, numbers and lists.

        `tokenizer.ggml.model` is "gpt2" (byte-level BPE, split as `tokenizer.ggml.pre` names) or "llama"
        (SentencePiece's BPE); special tokens, what is put around a text, and chat templates are read too.
        """
        library, settings = gguf_library(metadata)
        return cls(library, settings=settings)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes `tokenizer.json` (into `path`, if that is a folder) all at once, and returns the file's path."""
        if hasattr(self.library, "save_files"):
            raise ValueError("a Marian tokenizer is no tokenizer.json: save its files with save_pretrained(folder)")
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        atomic_write(path, self.library.to_str(pretty=True))
        return path

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes the files that `from_pretrained` and transformers read: the vocabulary, special tokens, templates."""
        save_folder(self, folder)

    # -- using it -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, add_special_tokens: bool = False) -> np.ndarray:
        """The ids of `text`, int64, shape (T,).

        A special token written out in the text becomes that token. `add_special_tokens` adds what a loaded file's
        template puts around a text (Llama's begin-of-text, BERT's [CLS] and [SEP]).
        """
        return self.encode_batch([text], add_special_tokens=add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[np.ndarray]:
        """The ids of each text, in parallel; one int64 array a text."""
        self.check_texts(texts)
        encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def check_texts(self, texts: Sequence[str]) -> None:
        """TypeError for what is not text; ValueError for a lone surrogate, or a character that "char" does not know."""
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"expected text to encode, a str, got {type(text).__name__}")
            if not text.isascii():
                text.encode("utf-8")  # a lone surrogate is the one str that can't be encoded: this names its place
            if self._known_characters is not None:
                check_characters(text, self._known_characters, self.library)

    def __call__(
        self, text: str | Sequence[str], text_pair: str | Sequence[str] | None = None, **options
    ) -> BatchEncoding:
        """A batch as arrays (B, T), int64, the special tokens around each text: what a model is called with.

        `text_pair` is a second text for each, marked by `token_type_ids` where the model's family has those. Options,
        as in transformers: `add_special_tokens=True`; `padding=False` (True or "longest", or "max_length"), with
        `pad_to_multiple_of` and `padding_side`; `truncation=False` (True or "longest_first", "only_first",
        "only_second"), with `truncation_side`; `max_length` (else the model's longest input);
        `return_token_type_ids`, `return_offsets_mapping`, `return_special_tokens_mask`.

        >>> tokenizer = Tokenizer.byte(["<pad>"])
        >>> tokenizer.pad_token = "<pad>"
        >>> batch = tokenizer(["hé", "o"], padding=True, padding_side="left")
        >>> batch.input_ids.tolist(), batch.attention_mask.tolist()
        ([[104, 195, 169], [256, 256, 111]], [[1, 1, 1], [0, 0, 1]])
        """
        return encode_texts(self, text, text_pair, **options)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping],
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        *,
        chat_template: str | None = None,
        tools: Sequence[Mapping] | None = None,
        documents: Sequence[Mapping] | None = None,
        **variables,
    ) -> np.ndarray | str:
        """A conversation as the ids (T,) that its model was trained on, or as text if not `tokenize`.

        `messages` are `{"role": "user", "content": "..."}`; `add_generation_prompt` opens the assistant's answer;
        `chat_template` is the name of one of `chat_templates`, or a template. The other arguments are what the template
        sees. Needs the extra `chat`; a template that fails or does what the sandbox forbids is a ChatTemplateError.
        """
        template = choose_template(self.chat_templates, chat_template, tools)
        seen = {"tools": tools, "documents": documents, "add_generation_prompt": add_generation_prompt}
        text = render_chat(template, messages, {**self.special_tokens, **seen, **variables})
        return self.encode(text) if tokenize else text

    def decode(
        self, ids, *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """The text of `ids`; what is not UTF-8 becomes U+FFFD, and an id outside the vocabulary is a ValueError.

        `clean_up_tokenization_spaces` takes out the spaces that splitting put before punctuation; None is what the
        model's files say, except for a BPE, which puts no space there.
        """
        text = self.library.decode(self.check_ids(ids), skip_special_tokens=skip_special_tokens)
        clean = clean_up_tokenization_spaces
        if clean is None:
            clean = self.clean_up_tokenization_spaces and self._specification["model"].get("type") != "BPE"
        return clean_up(text) if clean else text

    @property
    def target(self) -> Tokenizer:
        """The tokenizer of what an encoder-decoder writes, for its labels: Marian's target side; any other's own."""
        library = getattr(self.library, "target", self.library)
        if library is self.library:
            return self
        return type(self)(library, settings=self._settings)

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
        largest = max(self.library.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest >= _MOST_TOKENS:
            raise ValueError(f"the tokenizer's largest id is {largest}, which no model has: its file is damaged")
        return largest + 1

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
        return digest(self._specification)

    @cached_property
    def token_bytes(self) -> list[bytes] | None:
        """The bytes of each id, where decoding is joining them (byte-level and character tokenizers); else None."""
        return token_bytes(self._specification, [self.library.id_to_token(index) for index in range(self.vocab_size)])

    def __repr__(self) -> str:
        kind = self._specification["model"].get("type", "unknown model")
        return f"Tokenizer({kind}, vocab_size={self.vocab_size}, eos_token={self.eos_token!r}, {self.digest[:12]})"

    @cached_property
    def _specification(self) -> dict:
        return json.loads(self.library.to_str())

    @cached_property
    def _known_characters(self) -> frozenset[str] | None:
        return known_characters(self._specification)


def _pieces(texts: str | Iterable[str]) -> Iterable[str]:
    return [texts] if isinstance(texts, str) else texts
