"""What must be true of any model of text, verified on the user's own: `minilm check RUN`."""

from __future__ import annotations

from collections.abc import Callable

from minilm import backend
from minilm.nn import Module, eval_mode

from .properties import CheckResult, Context, properties_of
from .subjects import subject_of

__all__ = ["CheckResult", "check_model"]


def check_model(model, *, length: int = 32, seed: int = 0, report: Callable[[CheckResult], None] | None = None):
    """Verifies a model's properties on random tokens and returns a list of `CheckResult`, each reported as it comes.

    A model that writes may not see the future, and writes the same with its cache; a model of any kind ignores padding,
    keeps rows apart, and has the gradients that finite differences have (see properties.py). Errors are relative to the
    largest logit, or gradient of the same weights. The model's weights, mode and gradients
    are left as they were. `length` (4 or more, and at most half the model's is taken) is that of the token rows.

    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    >>> all(result.ok for result in check_model(model))
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"check_model takes a model, a minilm.nn.Module, not a {type(model).__name__}")
    subject = subject_of(model)
    if length < 4 or subject.max_length < 8:
        raise ValueError(
            f"length is {length} and the model's longest text {subject.max_length}; expected 4 and 8 tokens at least"
        )
    length = min(length, subject.max_length // 2)
    context = Context(subject, length, backend.Generator(seed))
    results = []
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        with eval_mode(model):
            for check in properties_of(subject):
                result = check(context)
                results.append(result)
                if report is not None:
                    report(result)
    finally:
        for p, gradient in gradients:
            p.grad = gradient
    return results
