"""What `--tokenizer char|byte|bpe|FILE` means, before the corpus has been read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from minilm.tokenization.tokenizer import Tokenizer

__all__ = ["TokenizerRecipe"]

DEFAULT_BPE_VOCAB_SIZE = 4096


@dataclass(frozen=True)
class TokenizerRecipe:
    """How to get a tokenizer for a corpus: `kind` is "char", "byte", "bpe", or the path of a tokenizer.json.

    `vocab_size` is for "bpe" alone (4096 if None); with any other kind it is an error. `key` names the result, so that
    data prepared with it is found again without training the tokenizer again.

    >>> recipe = TokenizerRecipe("bpe", vocab_size=300)
    >>> recipe.key
    'bpe-300'
    >>> recipe.build(["some text, some more text"]).eos_token
    '<|endoftext|>'
    """

    kind: str
    vocab_size: int | None = None

    def __post_init__(self):
        if self.vocab_size is not None and self.kind != "bpe":
            raise ValueError(
                f"vocab_size={self.vocab_size} is for the tokenizer 'bpe'; {self.kind!r} has a vocabulary of its own"
            )
        if self.kind not in ("char", "byte", "bpe"):
            try:
                self._file  # noqa: B018  (a wrong path is an error now, not after the corpus was read)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"the tokenizer is 'char', 'byte', 'bpe' or the path of a tokenizer.json; {self.kind!r} is none"
                ) from error

    @property
    def key(self) -> str:
        """A name that changes whenever the tokenizer that `build` gives for one corpus would change."""
        if self.kind == "bpe":
            return f"bpe-{self._bpe_vocab_size}"
        if self.kind in ("char", "byte"):
            return self.kind
        return f"file-{self._file.digest}-{self._file.eos_token_id}"

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer; "char" and "bpe" read all of `texts` for it, the others none."""
        if self.kind == "char":
            return Tokenizer.char(texts)
        if self.kind == "bpe":
            return Tokenizer.train_bpe(texts, self._bpe_vocab_size)
        return Tokenizer.byte() if self.kind == "byte" else self._file

    @property
    def _bpe_vocab_size(self) -> int:
        return DEFAULT_BPE_VOCAB_SIZE if self.vocab_size is None else self.vocab_size

    @cached_property
    def _file(self) -> Tokenizer:
        return Tokenizer.from_file(self.kind)
