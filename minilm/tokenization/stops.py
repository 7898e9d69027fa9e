"""Text that grows, up to a stop string: what is certain is passed on, and no beginning of a stop string is shown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopFinder"]


class StopFinder:
    """Passes a text on as it grows, up to the first stop string, and holds back what may be the beginning of one.

    >>> finder = StopFinder(["aab"])
    >>> finder.push("xaa"), finder.push("ab, and more"), finder.stopped
    ('x', 'a', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.stopped = tuple(stops), "", False

    def push(self, text: str) -> str:
        """What of the text so far is certain now; nothing after a stop string."""
        if self.stopped:
            return ""
        self.held += text
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self.held = self.held[: min(found)], ""
            return text
        longest = max((_overlap(self.held, stop) for stop in self.stops), default=0)
        certain = len(self.held) - longest
        text, self.held = self.held[:certain], self.held[certain:]
        return text

    def finish(self) -> str:
        """What was held back, where no more text comes."""
        text, self.held = self.held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`, at most all but one of these."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
