"""Where generation stops: at tokens, and at texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Ending", "StopStrings"]

# A character has at most four bytes in UTF-8, and so changes with the last four tokens at most; and so many characters
# at the beginning of a decoded tail may be broken, for want of the tokens before it.
_UNSETTLED = 4


class StopStrings:
    """Finds the stop strings in a row's text while it grows, also those that run over several tokens.

    Raises ValueError for an empty stop string, or stop strings without a tokenizer to decode tokens with.

    >>> from minilm.tokenization import Tokenizer
    >>> StopStrings(Tokenizer.byte(), ["END"]).ends(np.frombuffer(b"the END", np.uint8))
    True
    """

    def __init__(self, tokenizer, strings: str | Sequence[str] | None) -> None:
        self.strings = (strings,) if isinstance(strings, str) else tuple(strings or ())
        if not all(self.strings):
            raise ValueError("a stop string is empty; leave it out")
        if self.strings and tokenizer is None:
            raise ValueError("stop_strings are text: pass the tokenizer too, to compare with")
        self.decode = None if tokenizer is None else tokenizer.decode
        self.longest = max(map(len, self.strings), default=0)

    def ends(self, tokens: np.ndarray) -> bool:
        """Whether the text of `tokens` (n,) holds a stop string, if that of `tokens[:-1]` held none."""
        if not self.strings:
            return False
        text = self.decode(tokens[-self._enough(tokens) :])
        return any(stop in text for stop in self.strings)

    def _enough(self, tokens: np.ndarray) -> int:
        """How many of the last tokens are sure to hold a stop string that the last of them completed.

        Decoding them all at every step would cost the square of their number.
        """
        count = self.longest + 2 * _UNSETTLED
        while count < len(tokens) and len(self.decode(tokens[-count:-_UNSETTLED])) < self.longest + _UNSETTLED:
            count *= 2  # tokens with less than a character each: bytes of longer ones, or special tokens
        return min(count, len(tokens))


class Ending:
    """Says which rows are at their end with their last token, `prompt` tokens coming before the first new one."""

    def __init__(self, prompt: int, tokens: Sequence[int], strings: StopStrings) -> None:
        self.prompt, self.tokens, self.strings = prompt, tokens, strings

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """(B,) bool for tokens (B, T)."""
        ended = np.isin(ids[:, -1], self.tokens)
        if self.strings.strings:
            ended |= np.array([self.strings.ends(row[self.prompt :]) for row in ids])
        return ended
