"""What must be true of any causal language model, verified on the user's own: `minilm check RUN`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minilm import backend
from minilm.autograd import no_grad

__all__ = ["CheckResult", "check_model"]


@dataclass(frozen=True)
class CheckResult:
    """One property: what was measured, and the most that it may be."""

    name: str
    error: float
    limit: float
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the property holds (NaN does not)."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}: {self.error:.2e} (at most {self.limit:.0e}); {self.detail}"


def check_model(model, *, length: int = 32, seed: int = 0, report: Callable[[CheckResult], None] | None = None):
    """Verifies the properties below on random tokens and returns a list of `CheckResult`, each reported as it comes.

    Errors are relative to the largest logit or gradient. The model's weights, mode and gradients are left as they
    were. `length` (at most half the model's) is that of the token rows.
    """
    context = _Context(model, max(4, min(length, model.max_length // 2)), backend.Generator(seed))
    results = []
    was_training = model.training
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.eval()
    try:
        for check in (_future, _cache, _left_padding, _right_padding, _alone, _kernels, _differences, _accumulation):
            result = check(context)
            results.append(result)
            if report is not None:
                report(result)
    finally:
        model.train(was_training)
        for name, p in model.named_parameters():
            p.grad = gradients[name]
    return results


class _Context:
    """The model under test, and the tokens and helpers that the checks share."""

    def __init__(self, model, length: int, stream: backend.Generator) -> None:
        self.model, self.length, self.stream = model, length, stream
        self.ids = self.tokens(4, length)

    def tokens(self, rows: int, length: int) -> np.ndarray:
        return self.stream.integers(0, self.model.config.vocab_size, (rows, length))

    def logits(self, ids, model=None, **arguments) -> np.ndarray:
        with no_grad():
            return backend.to_numpy((model or self.model)(ids, **arguments).logits.data).astype(np.float64)

    def gradients(self, model, batches: list[np.ndarray]) -> dict[str, np.ndarray]:
        """The gradients of the mean loss over `batches`, added up batch by batch."""
        model.zero_grad()
        for ids in batches:
            loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
            (loss * (1 / len(batches))).backward()
        found = {n: backend.to_numpy(p.grad.data) for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    scale = np.abs(b).max(initial=0.0)
    return float(np.abs(a - b).max(initial=0.0) / (scale if scale > 0 else 1.0))


def _future(c: _Context) -> CheckResult:
    """Other tokens after position t must leave the logits up to t as they are."""
    cut = c.length // 2
    changed = np.concatenate([c.ids[:, :cut], c.tokens(len(c.ids), c.length - cut)], axis=1)
    error = _relative(c.logits(changed)[:, :cut], c.logits(c.ids)[:, :cut])
    return CheckResult("no position sees the future", error, 1e-5, f"tokens after {cut} replaced, logits before compared")


def _cache(c: _Context) -> CheckResult:
    """Tokens fed one at a time through the cache must give the logits of feeding them at once, and the same text."""
    cache = c.model.new_cache()
    pieces = [c.ids[:, : c.length // 2], *np.split(c.ids[:, c.length // 2 :], c.length - c.length // 2, axis=1)]
    stepwise = np.concatenate([c.logits(piece, cache=cache) for piece in pieces], axis=1)
    error = _relative(stepwise, c.logits(c.ids))
    prompt, new = c.ids[:, : c.length // 2], min(24, c.length)
    same = np.array_equal(
        c.model.generate(prompt, new, eos_token_id=[]), c.model.generate(prompt, new, eos_token_id=[], use_cache=False)
    )
    detail = f"{new} greedy tokens {'equal' if same else 'DIFFER'} with and without the cache"
    return CheckResult("cached generation equals uncached", error if same else float("inf"), 1e-4, detail)


def _padding(c: _Context, left: bool) -> float:
    pad = c.length // 2
    short, filler = c.ids[:, pad:], c.tokens(len(c.ids), pad)
    order = (filler, short) if left else (short, filler)
    mask = np.concatenate([np.full(part.shape, part is short, np.int64) for part in order], axis=1)
    padded = c.logits(np.concatenate(order, axis=1), attention_mask=mask)
    return _relative(padded[:, pad:] if left else padded[:, : short.shape[1]], c.logits(short))


def _left_padding(c: _Context) -> CheckResult:
    return CheckResult("padding on the left changes nothing", _padding(c, True), 1e-4, "logits of the real tokens")


def _right_padding(c: _Context) -> CheckResult:
    return CheckResult("padding on the right changes nothing", _padding(c, False), 1e-4, "logits of the real tokens")


def _alone(c: _Context) -> CheckResult:
    """A row's logits must not depend on the rows beside it."""
    alone = np.concatenate([c.logits(row[None]) for row in c.ids])
    return CheckResult("rows of a batch do not mix", _relative(alone, c.logits(c.ids)), 1e-4, "each row alone")


def _in_float64(model):
    twin = copy.deepcopy(model)
    return twin.to("float64").eval()


def _kernels(c: _Context) -> CheckResult:
    """Gradients as training computes them, by the fused kernels, against float64 by the references."""
    own = c.gradients(c.model, [c.ids])
    exact = c.gradients(_in_float64(c.model), [c.ids])
    scale = max(np.abs(g).max() for g in exact.values())
    errors = {name: float(np.abs(own[name] - exact[name]).max() / scale) for name in exact}
    worst = max(errors, key=errors.get)
    return CheckResult("gradients match a float64 computation", errors[worst], 1e-4, f"worst in {worst}")


def _differences(c: _Context) -> CheckResult:
    """For each weight tensor the slope along a random direction, against the loss a little to either side."""
    twin = _in_float64(c.model)
    ids = c.ids[:2, :8]
    gradients = c.gradients(twin, [ids])
    scale = max(float(np.sqrt((g**2).sum())) for g in gradients.values())
    errors = {}
    for name, parameter in twin.named_parameters():
        if name not in gradients:
            continue
        direction = c.stream.normal(parameter.shape, dtype="float64")
        direction /= np.sqrt((direction**2).sum())
        move = backend.to_device(direction, parameter.device)
        before, losses = parameter.data, []
        eps = 1e-5
        for step in (eps, -eps):
            parameter.data = before + step * move
            with no_grad():
                losses.append(twin(ids[:, :-1], targets=ids[:, 1:]).loss.item())
        parameter.data = before
        slope = (losses[0] - losses[1]) / (2 * eps)
        errors[name] = abs(slope - float((gradients[name] * direction).sum())) / scale
    worst = max(errors, key=errors.get)
    detail = f"{len(errors)} weight tensors, each along a random direction; worst {worst}"
    return CheckResult("gradients match finite differences", errors[worst], 1e-5, detail)


def _accumulation(c: _Context) -> CheckResult:
    """Two half batches, their gradients added up, must give the gradient of the whole batch."""
    half = len(c.ids) // 2
    apart = c.gradients(c.model, [c.ids[:half], c.ids[half:]])
    whole = c.gradients(c.model, [c.ids])
    scale = max(np.abs(g).max() for g in whole.values())
    error = max(float(np.abs(apart[name] - whole[name]).max() / scale) for name in whole)
    return CheckResult("accumulated small batches equal one big batch", error, 1e-5, "two halves against the whole")
