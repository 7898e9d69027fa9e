"""A corpus through a tokenizer into a folder of token files, once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from minilm.data.corpus import Corpus
from minilm.data.errors import DataError
from minilm.data.split import Part, split
from minilm.data.token_file import TokenFile, TokenFileWriter
from minilm.files import atomic_write

__all__ = ["PreparedData", "prepare"]

_FORMAT = 1
_MANIFEST = "data.json"
_TOKENIZER = "tokenizer.json"
_BATCH_CHARACTERS = 1 << 21  # encoded together, in parallel: some 200 MB of the library's own records at most


@dataclass(frozen=True)
class PreparedData:
    """A folder with `train.tokens`, `val.tokens`, `tokenizer.json` and `data.json`, which says what they were made of.

    `info` is data.json: source, val_source, val_fraction, documents, skipped (name and reason of each file left out),
    tokenizer (digest, sha256, vocab_size, eos_token_id), and for "train" and "val" each tokens, characters and bytes
    (of UTF-8, for bits a byte).

    >>> import tempfile
    >>> from minilm.tokenization import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "text.txt").write_text("0123456789" * 10)
    ...     _ = prepare(Path(folder, "text.txt"), Tokenizer.byte(), Path(folder, "prepared"))
    ...     data = PreparedData.open(Path(folder, "prepared"))
    ...     data.train.tokens[:3], data.info["val"]["tokens"]
    (array([48, 49, 50], dtype=uint16), 10)
    """

    folder: Path
    train: TokenFile
    val: TokenFile
    tokenizer_path: Path
    info: dict = field(repr=False)

    @staticmethod
    def is_prepared(folder: str | os.PathLike) -> bool:
        """Whether `folder` is one that `prepare` finished."""
        return Path(folder, _MANIFEST).is_file() and Path(folder, "train.tokens").is_file()

    @classmethod
    def open(cls, folder: str | os.PathLike, *, verify: bool = True) -> PreparedData:
        """Opens a prepared folder; DataError if a part of it is missing, damaged, or not of one piece."""
        folder = Path(folder)
        try:
            info = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            version, fingerprints = info["format"], (info["tokenizer"]["digest"], info["tokenizer"]["sha256"])
            counts = {name: info[name]["tokens"] for name in ("train", "val")}
        except FileNotFoundError:
            raise DataError(
                f"{folder} is no prepared folder: it has no {_MANIFEST}; prepare a corpus into it"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / _MANIFEST} is damaged ({error!r}); prepare the corpus again") from error
        if version != _FORMAT:
            raise DataError(
                f"{folder} has data format {version}, this minilm reads {_FORMAT}; prepare the corpus again"
            )
        files = {name: TokenFile(folder / f"{name}.tokens", verify=verify) for name in ("train", "val")}
        for name, file in files.items():
            file.check_tokenizer(fingerprints[0])
            if len(file) != counts[name]:
                raise DataError(
                    f"{file.path} has {len(file)} tokens and {_MANIFEST} says {counts[name]}; prepare the corpus again"
                )
        tokenizer = folder / _TOKENIZER
        if not tokenizer.is_file() or _sha256(tokenizer) != fingerprints[1]:
            raise DataError(f"{tokenizer} is missing or not the one that made the tokens; prepare the corpus again")
        return cls(folder, files["train"], files["val"], tokenizer, info)


def prepare(
    corpus: Corpus | str | os.PathLike | Sequence[str | os.PathLike],
    tokenizer,
    folder: str | os.PathLike,
    *,
    val_fraction: float = 0.1,
    val_corpus: Corpus | str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """Makes the token files of a corpus in `folder`, or opens them if they are there already.

    `tokenizer` is a Tokenizer, or a TokenizerRecipe, which is built on the corpus (and on `val_corpus`). Validation is
    `val_corpus` if given, else the share `val_fraction` of the corpus (see `minilm.data.split`; a single file is split
    as nanoGPT splits it). Each document ends with the end-of-text token if the tokenizer has one. The corpus is
    streamed: it may be larger than memory. What is in `folder` is used again if it was made of the same files (path,
    size, modification time), the same tokenizer or recipe and the same split, and is whole; else it is made anew.
    `progress(done, total)` is called with characters.

    Raises FileNotFoundError and DataError before anything is written, if the corpus is missing, no text, or too short.

    >>> import tempfile
    >>> from minilm.tokenization import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "text.txt").write_text("0123456789" * 10)
    ...     data = prepare(Path(folder, "text.txt"), Tokenizer.byte(), Path(folder, "prepared"))
    ...     len(data.train), len(data.val)
    (90, 10)
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    if val_corpus is not None and not isinstance(val_corpus, Corpus):
        val_corpus = Corpus(val_corpus)
    folder = Path(folder)
    fingerprint = _fingerprint(corpus, tokenizer, val_fraction, val_corpus)
    if PreparedData.is_prepared(folder):
        try:
            prepared = PreparedData.open(folder)
        except (DataError, FileNotFoundError):
            prepared = None  # damaged: its source is here, so it is simply made again
        if prepared is not None and prepared.info.get("fingerprint") == fingerprint:
            return prepared

    if val_corpus is None:
        train, val = split(corpus.documents, val_fraction)
    else:
        train, val = ([Part(d, 0, d.characters) for d in c.documents] for c in (corpus, val_corpus))
    if hasattr(tokenizer, "build"):
        tokenizer = tokenizer.build(chain(corpus.texts(), () if val_corpus is None else val_corpus.texts()))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MANIFEST).unlink(missing_ok=True)  # written last: while it is missing, the folder is unfinished
    counts = _Progress(sum(part.stop - part.start for part in train + val), progress)
    info = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "source": corpus.description,
        "val_source": None if val_corpus is None else val_corpus.description,
        "val_fraction": val_fraction if val_corpus is None else None,
        "documents": len(corpus.documents),
        "skipped": [list(entry) for entry in corpus.skipped],
        "train": _write(train, tokenizer, folder / "train.tokens", counts),
        "val": _write(val, tokenizer, folder / "val.tokens", counts),
    }
    path = tokenizer.save(folder / _TOKENIZER)
    info["tokenizer"] = {
        "digest": tokenizer.digest,
        "sha256": _sha256(path),
        "vocab_size": tokenizer.vocab_size,
        "eos_token_id": tokenizer.eos_token_id,
    }
    atomic_write(folder / _MANIFEST, json.dumps(info, indent=2))
    return PreparedData.open(folder, verify=False)


class _Progress:
    def __init__(self, total: int, callback: Callable[[int, int], None] | None):
        self.done, self.total, self.callback = 0, total, callback

    def advance(self, characters: int) -> None:
        self.done += characters
        if self.callback is not None:
            self.callback(self.done, self.total)


def _write(parts: Iterable[Part], tokenizer, path: Path, progress: _Progress) -> dict:
    """Encodes the parts of documents into a token file, and returns its counts for the manifest."""
    eos = tokenizer.eos_token_id
    characters = size = 0
    batch: list[tuple[str, bool]] = []  # a piece, and whether its document ends with it

    def flush() -> None:
        for ids, (_, ends) in zip(tokenizer.encode_batch([text for text, _ in batch]), batch, strict=True):
            writer.write(ids)
            if ends and eos is not None:
                writer.write([eos])
        progress.advance(sum(len(text) for text, _ in batch))
        batch.clear()

    with TokenFileWriter(
        path, vocab_size=tokenizer.vocab_size, tokenizer_digest=tokenizer.digest, eos_token_id=eos
    ) as writer:
        waiting = 0
        for document, start, stop in parts:
            for text in document.chunks(start, stop):
                start += len(text)
                batch.append((text, start == document.characters))
                characters += len(text)
                size += len(text.encode("utf-8"))
                waiting += len(text)
                if waiting >= _BATCH_CHARACTERS:
                    flush()
                    waiting = 0
        if batch:
            flush()
    return {"tokens": writer.count, "characters": characters, "bytes": size}


def _fingerprint(corpus: Corpus, tokenizer, val_fraction: float, val_corpus: Corpus | None) -> str:
    recipe = tokenizer.key if hasattr(tokenizer, "key") else f"{tokenizer.digest}-{tokenizer.eos_token_id}"
    held_out = repr(float(val_fraction)) if val_corpus is None else val_corpus.fingerprint
    return hashlib.sha256(f"{_FORMAT} {corpus.fingerprint} {recipe} {held_out}".encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
