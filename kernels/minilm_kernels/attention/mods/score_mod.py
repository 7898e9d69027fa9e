"""`ScoreMod`: a score_mod together with its derivative."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ScoreMod", "checked_score_mod"]


class ScoreMod:
    """A score_mod with a derivative given by hand, where none can be derived or a better one is known.

        gradient(score, b, h, q, k) = d score_mod(score, b, h, q, k) / d score

    It is called as the function itself. Before the first use the gradient is compared with differences of `score_mod`
    at random points, and a ValueError says where they disagree. TypeError if either is not a function.

    >>> cube = ScoreMod(lambda score, b, h, q, k: score**3, gradient=lambda score, b, h, q, k: 3 * score**2)
    >>> cube(2.0, 0, 0, 0, 0)
    8.0
    """

    def __init__(self, function: Callable, gradient: Callable | None = None):
        for name, value in (("function", function), ("gradient", gradient)):
            if not callable(value) and not (name == "gradient" and value is None):
                raise TypeError(f"{name} is {value!r}; expected a function of (score, b, h, q, k)")
        self.function, self.gradient = function, gradient

    def __call__(self, score, b, h, q, k):
        return self.function(score, b, h, q, k)

    def __repr__(self) -> str:
        given = "" if self.gradient is None else f", gradient={getattr(self.gradient, '__name__', self.gradient)}"
        return f"ScoreMod({getattr(self.function, '__name__', self.function)}{given})"


def checked_score_mod(score_mod: Callable | None) -> Callable | None:
    """`score_mod`; TypeError unless it is a function, a `ScoreMod` or None."""
    if score_mod is not None and not callable(score_mod):
        raise TypeError(f"score_mod is {score_mod!r}; expected a function of (score, b, h, q, k), or a ScoreMod of one")
    return score_mod
