"""The properties that `check_model` verifies, one function each: it measures, and says the most that it may be."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import numpy as np

from minilm import backend
from minilm.autograd import no_grad

from .subjects import Subject

__all__ = ["CheckResult", "Context", "properties_of"]


@dataclass(frozen=True)
class CheckResult:
    """One property: what was measured, and the most that it may be.

    >>> result = CheckResult("sums to one", 3e-7, 1e-6, "softmax of 4 rows")
    >>> result.ok, str(result)
    (True, 'ok   sums to one: 3.00e-07 (at most 1e-06); softmax of 4 rows')
    """

    name: str
    error: float
    limit: float
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the property holds (NaN does not)."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return (
            f"{'ok  ' if self.ok else 'FAIL'} {self.name}: {self.error:.2e} (at most {self.limit:.0e}); {self.detail}"
        )


class Context:
    """The model under test, and the tokens and helpers that the checks share."""

    def __init__(self, subject: Subject, length: int, stream: backend.Generator) -> None:
        self.subject, self.model, self.length, self.stream = subject, subject.model, length, stream
        self.ids = self.tokens(4, length)

    def tokens(self, rows: int, length: int) -> np.ndarray:
        ids = self.stream.integers(0, self.model.config.vocab_size, (rows, length))
        padding = getattr(self.model.config, "pad_token_id", None)  # its embedding is not learnt: no gradient, rightly
        return ids if padding is None else np.where(ids == padding, (ids + 1) % self.model.config.vocab_size, ids)

    def gradients(self, model, batches: list[np.ndarray]) -> dict[str, np.ndarray]:
        """The gradients of the mean loss over `batches`, added up batch by batch; zeros where none arrived."""
        model.zero_grad()
        for ids in batches:
            loss = self.subject.loss(ids, model)
            (loss * (1 / len(batches))).backward()
        found = {
            name: np.zeros(p.shape) if p.grad is None else backend.to_numpy(p.grad.data)
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        model.zero_grad()
        return found


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    scale = np.abs(b).max(initial=0.0)
    return float(np.abs(a - b).max(initial=0.0) / (scale if scale > 0 else 1.0))


def _worst(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest error of a weight tensor's gradient, relative to that gradient, and the tensor's name.

    A gradient that is tiny beside the others (it may be zero but for rounding) is measured by a hundredth of theirs.
    """
    sizes = {name: np.abs(g).max(initial=0.0) for name, g in exact.items()}
    floor = 0.01 * np.max(list(sizes.values()))
    errors = {name: np.abs(found[name] - exact[name]).max(initial=0.0) / max(sizes[name], floor) for name in exact}
    return _largest(errors)


def _largest(errors: dict[str, float]) -> tuple[float, str]:
    place = int(np.argmax(list(errors.values())))  # (NaN counts as the largest)
    return float(list(errors.values())[place]), list(errors)[place]


def _future(c: Context) -> CheckResult:
    """Other tokens after position t must leave the logits up to t as they are."""
    cut = c.length // 2
    changed = np.concatenate([c.ids[:, :cut], c.tokens(len(c.ids), c.length - cut)], axis=1)
    error = _relative(c.subject.numbers(changed)[:, :cut], c.subject.numbers(c.ids)[:, :cut])
    return CheckResult(
        "no position sees the future", error, 1e-5, f"tokens after {cut} replaced, logits before compared"
    )


def _cache(c: Context) -> CheckResult:
    """Tokens fed one at a time through the cache must give the logits of feeding them at once, and the same text."""
    pieces = [c.ids[:, : c.length // 2], *np.split(c.ids[:, c.length // 2 :], c.length - c.length // 2, axis=1)]
    error = _relative(c.subject.stepwise(pieces), c.subject.numbers(c.ids))
    prompt, new = c.ids[:, : c.length // 2], min(24, c.length)
    same = np.array_equal(c.subject.text(prompt, new), c.subject.text(prompt, new, use_cache=False))
    detail = f"{new} greedy tokens {'equal' if same else 'DIFFER'} with and without the cache"
    return CheckResult("cached generation equals uncached", error if same else float("inf"), 1e-4, detail)


def _padding(c: Context, left: bool) -> float:
    pad = c.length // 2
    short, filler = c.ids[:, pad:], c.tokens(len(c.ids), pad)
    order = (filler, short) if left else (short, filler)
    mask = np.concatenate([np.full(part.shape, part is short, np.int64) for part in order], axis=1)
    padded = c.subject.numbers(np.concatenate(order, axis=1), attention_mask=mask)
    alone = c.subject.numbers(short)
    if padded.shape[1:] != alone.shape[1:]:  # a number for each token, not for each text
        padded = padded[:, pad:] if left else padded[:, : short.shape[1]]
    return _relative(padded, alone)


def _left_padding(c: Context) -> CheckResult:
    return CheckResult("padding on the left changes nothing", _padding(c, True), 1e-4, "logits of the real tokens")


def _right_padding(c: Context) -> CheckResult:
    return CheckResult("padding on the right changes nothing", _padding(c, False), 1e-4, "logits of the real tokens")


def _padding_of_the_source(c: Context) -> CheckResult:
    source = c.subject.source(c.ids)
    filler = c.tokens(len(source), 3)
    mask = np.concatenate([np.ones_like(source), np.zeros_like(filler)], axis=1)
    padded = c.subject.numbers(c.ids, source=np.concatenate([source, filler], axis=1), attention_mask=mask)
    error = _relative(padded, c.subject.numbers(c.ids, source=source))
    return CheckResult("padding of the text that is read changes nothing", error, 1e-4, "on its right; all logits")


def _alone(c: Context) -> CheckResult:
    """A row's logits must not depend on the rows beside it."""
    alone = np.concatenate([c.subject.numbers(row[None]) for row in c.ids])
    return CheckResult("rows of a batch do not mix", _relative(alone, c.subject.numbers(c.ids)), 1e-4, "each row alone")


def _loss(c: Context) -> CheckResult:
    """The loss must be the mean of -log softmax(logits)[target] over the targets that are not -100."""
    targets = np.where(c.tokens(*c.ids.shape) % 3 == 0, -100, c.tokens(*c.ids.shape))
    targets[:, 0], targets[:, 1] = c.ids[:, 0], -100  # at least one of either kind
    with no_grad():
        out = c.subject.call(c.ids, targets=targets)
    logits = backend.to_numpy(out.logits.data).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    expected = (np.log(np.exp(logits).sum(axis=-1)) - chosen)[targets != -100].mean()
    error = _relative(np.array(out.loss.item()), np.array(expected))
    detail = f"{(targets != -100).sum()} targets, {(targets == -100).sum()} ignored"
    return CheckResult("the loss is the mean over the targets", error, 1e-5, detail)


def _in_float64(model):
    twin = copy.deepcopy(model)
    return twin.to("float64")


def _kernels(c: Context) -> CheckResult:
    """Gradients as training computes them against the same in float64."""
    own = c.gradients(c.model, [c.ids])
    exact = c.gradients(_in_float64(c.model), [c.ids])
    error, name = _worst(own, exact)
    return CheckResult("gradients match a float64 computation", error, 1e-4, f"worst in {name}")


def _differences(c: Context) -> CheckResult:
    """For each kind of weight the slope of the loss along a direction, against the loss a little to either side.

    The direction is half the gradient's own, in which an error of scale or sign shows in full, and half a random one,
    which shows all others. The weights of the same name in all layers are moved at once: the cost is the same for any
    depth.
    """
    twin = _in_float64(c.model)
    ids = c.ids[:2, :8]
    gradients = c.gradients(twin, [ids])
    weights = dict(twin.named_parameters())
    kinds: dict[str, list[str]] = {}
    for name in gradients:
        kinds.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    sizes = {kind: _norm(*(gradients[name] for name in names)) for kind, names in kinds.items()}
    floor = 0.01 * np.max(list(sizes.values()))
    errors = {}
    for kind, names in kinds.items():
        moves, expected = [], 0.0
        for name in names:
            random = c.stream.normal(gradients[name].shape, dtype="float64")
            direction = gradients[name] / (_norm(gradients[name]) or 1.0) + random / _norm(random)
            moves.append((weights[name], backend.to_device(direction, weights[name].device)))
            expected += float((gradients[name] * direction).sum())
        errors[kind] = abs(_slope(c.subject, twin, ids, moves) - expected) / max(sizes[kind], floor)
    error, kind = _largest(errors)
    detail = f"{len(gradients)} weight tensors of {len(kinds)} kinds; worst in {kind}"
    return CheckResult("gradients match finite differences", error, 1e-5, detail)


def _norm(*arrays: np.ndarray) -> float:
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays)))


def _slope(subject: Subject, model, ids: np.ndarray, moves: list, eps: float = 1e-5) -> float:
    """The slope of the loss where each weight tensor moves along its direction.

    By central differences of two widths, extrapolated to none (Richardson): a model with small weights before its
    norms bends so sharply that one width alone is off by more than a wrong gradient would be.
    """
    before = [parameter.data for parameter, _ in moves]

    def loss(step: float) -> float:
        for (parameter, direction), start in zip(moves, before):
            parameter.data = start + step * direction
        with no_grad():
            return subject.loss(ids, model).item()

    wide, narrow = ((loss(width) - loss(-width)) / (2 * width) for width in (eps, eps / 2))
    for (parameter, _), start in zip(moves, before):
        parameter.data = start
    return (4 * narrow - wide) / 3


def _accumulation(c: Context) -> CheckResult:
    """Two half batches, their gradients added up, must give the gradient of the whole batch."""
    half = len(c.ids) // 2
    apart = c.gradients(c.model, [c.ids[:half], c.ids[half:]])
    whole = c.gradients(c.model, [c.ids])
    error, name = _worst(apart, whole)
    detail = f"two halves against the whole; worst in {name}"
    return CheckResult("accumulated small batches equal one big batch", error, 1e-4, detail)


def properties_of(subject: Subject) -> list:
    """The checks for such a model, in order."""
    checks = []
    if subject.writes:
        checks.append(_future)
        if hasattr(subject.model, "generate"):
            checks.append(_cache)
    if subject.sees_left_padding:
        checks.append(_left_padding)
    checks += [_padding_of_the_source if hasattr(subject, "source") else _right_padding, _alone]
    return [*checks, *([_loss] if subject.writes else []), _kernels, _differences, _accumulation]
