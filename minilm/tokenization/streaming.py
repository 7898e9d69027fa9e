"""Decoding while ids arrive one by one, for a terminal that shows text as it is generated."""

from __future__ import annotations

import codecs

from minilm.tokenization.tokenizer import Tokenizer

__all__ = ["StreamDecoder"]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes in UTF-8: what still ends in U+FFFD after four tokens is not merely unfinished.
_LONGEST_CHARACTER = 4


class StreamDecoder:
    """Gives the text of each id as soon as it is certain, never half a character.

    `push(id)` returns the text that became complete ("" while a character's bytes are still missing), `finish()` the
    rest: an unfinished character as U+FFFD. For byte-level and character tokenizers the pieces joined are exactly
    `tokenizer.decode(ids)`, at a constant cost a token. Others (SentencePiece style) are decoded in short windows: the
    pieces joined are the full decoding of any ids that some text encodes to, no spaces cleaned up.

    >>> decoder = StreamDecoder(Tokenizer.byte())
    >>> [decoder.push(byte) for byte in "né".encode()] + [decoder.push(0xE2), decoder.finish()]
    ['n', '', 'é', '', '�']
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = False):
        self.tokenizer = tokenizer
        self.skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._decoder = _Bytes(tokenizer.token_bytes) if tokenizer.token_bytes is not None else _Windows(tokenizer)

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, "" if it completes none."""
        token_id = int(token_id)
        if not 0 <= token_id < self.tokenizer.vocab_size:
            raise ValueError(
                f"id {token_id} is not in the vocabulary: ids go from 0 to {self.tokenizer.vocab_size - 1}"
            )
        return "" if token_id in self.skipped else self._decoder.push(token_id)

    def finish(self) -> str:
        """The text still held back; the decoder then starts afresh."""
        return self._decoder.finish()


class _Bytes:
    """Decoding is joining the tokens' bytes: UTF-8's own incremental decoder does the rest."""

    def __init__(self, token_bytes: list[bytes]):
        self.token_bytes = token_bytes
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self.utf8.decode(self.token_bytes[token_id])

    def finish(self) -> str:
        text = self.utf8.decode(b"", final=True)
        self.utf8.reset()
        return text


class _Windows:
    """Decodes the last shown group of ids with the new ones, and shows by how much the text grew.

    The group shown last is the context that tells the decoder that a leading space is no longer at the start.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.shown, self.held = [], []

    def push(self, token_id: int) -> str:
        self.held.append(token_id)
        text = self._growth()
        if text.endswith(REPLACEMENT) and len(self.held) < _LONGEST_CHARACTER:
            return ""
        return self._show(text)

    def finish(self) -> str:
        text = self._growth() if self.held else ""
        self.shown, self.held = [], []
        return text

    def _growth(self) -> str:
        return self._text(self.shown + self.held)[len(self._text(self.shown)) :]

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)  # a later token can't take text back

    def _show(self, text: str) -> str:
        self.shown, self.held = self.held, []
        return text
