"""Gradient rules, and the plans made of them: what a call keeps, and which rules its walk runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Plan", "Rule", "make_plan"]


class Rule:
    """A gradient rule: for which inputs it speaks and what it wants to see."""

    def __init__(self, function: Callable, positions: tuple[int, ...]) -> None:
        self.function = function
        self.positions = positions
        parameters = list(inspect.signature(function).parameters.values())[1:]
        self.wants = tuple(p.name for p in parameters)
        self.by_keyword = any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)

    def __call__(self, g, values: list):
        """The gradients, given that of the output and what the rule wants, in order."""
        return self.function(g, **dict(zip(self.wants, values))) if self.by_keyword else self.function(g, *values)


class Plan(NamedTuple):
    """What a call keeps, and which rules its walk runs, where these inputs and no others need a gradient."""

    inputs: tuple[tuple[str, int], ...]  # name and place of those whose values are kept
    shapes: tuple[tuple[str, int], ...]  # "NAME_shape" and place of those whose shape is
    extras: tuple[tuple[str, int], ...]  # name and place among what the forward function returns beyond its output
    output: bool
    rules: tuple[tuple[Rule, tuple[int, ...]], ...]  # each with the inputs that it speaks for


def make_plan(
    rules: Iterable[tuple[Rule, tuple[int, ...]]],
    needs: tuple[bool, ...],
    inputs: tuple[str, ...],
    extras: tuple[str, ...],
    *,
    keep_inputs: bool,
) -> Plan:
    """The plan for an operation's `rules`, each with the inputs that it speaks for, where `needs` want a gradient.

    Only what the rules that will run have named is kept; with `keep_inputs` all inputs, if any rule runs.
    """
    rules = tuple((rule, positions) for rule, positions in rules if any(needs[i] for i in positions))
    names = {name for rule, _ in rules for name in rule.wants}
    if rules and keep_inputs:
        names.update(inputs)
    return Plan(
        tuple((name, i) for i, name in enumerate(inputs) if name in names),
        tuple((f"{name}_shape", i) for i, name in enumerate(inputs) if f"{name}_shape" in names),
        tuple((name, i) for i, name in enumerate(extras) if name in names),
        "y" in names,
        rules,
    )
