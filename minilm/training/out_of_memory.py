"""A step that did not fit into memory: what to lower, and by how much, by what a row was measured to take."""

from __future__ import annotations

import gc
import math

from minilm import backend, nn
from minilm.autograd import compute_in, kept_bytes

from .arguments import mean_loss
from .state import set_positions

__all__ = ["advise"]

_USABLE = 0.9  # of what is free: the rest goes to gaps between arrays


def advise(trainer, before: dict) -> backend.OutOfMemoryError:
    """What to raise for a step that began at the positions `before`; the trainer is put back there."""
    trainer.work.forget()
    trainer.optimizer.zero_grad()
    set_positions(trainer, before)
    gc.collect()
    backend.release_memory()
    config, device = trainer.config, trainer.model.device
    rows, total = config.batch_size, config.batch_size * config.accumulation
    what = f"out of memory on {device} in step {trainer.step + 1}, at batch_size {rows} and context {config.context}"
    free = backend.free_memory(device)
    try:
        with backend.guard_memory():
            row = _bytes_of_row(trainer, before, trainer.work.precision)
    except MemoryError:
        row = None
    if row is None or free is None:
        half = _divisor(total, rows // 2)
        lower = f"--train.batch-size {half} --train.accumulation {total // half}, the same batch for the optimiser"
        alone = "not even a row of it fits: lower train.context or the model's size" if row is None else f"try {lower}"
        return backend.OutOfMemoryError(f"{what}; {alone if rows > 1 or row is None else 'lower train.context'}")
    usable = _USABLE * free - _still_to_come(trainer)
    advice = _smaller_batch(usable, row, rows, total)
    current = _recomputed(trainer.model)
    for choice in nn.RECOMPUTE[nn.RECOMPUTE.index(current) + 1 :] if current else ():
        nn.set_recompute(trainer.model, choice)
        needed = _bytes_of_row(trainer, before, trainer.work.precision)
        nn.set_recompute(trainer.model, current)
        advice.append(f"--recompute {choice} ({_with(usable, needed, rows)})")
    if device == "cuda" and trainer.work.precision in ("fp32", "tf32"):
        advice.append(f"--precision bf16 ({_with(usable, _bytes_of_row(trainer, before, 'bf16'), rows)})")
    return backend.OutOfMemoryError(
        f"{what}: a row takes about {_size(row)}, and {_size(usable)} are left beside weights, gradients and the "
        f"optimiser's state. Choose: {'; or '.join(advice) if advice else 'a smaller model or context'}"
    )


def _smaller_batch(usable: float, row: int, rows: int, total: int) -> list[str]:
    fitting = min(int(usable // row), rows - 1)  # all of them did not fit, whatever the estimate says
    if fitting < 1:
        return []
    smaller = _divisor(total, fitting)
    return [
        f"--train.batch-size {smaller} --train.accumulation {total // smaller} (the same {total} rows a step for the "
        f"optimiser; up to {fitting} rows fit at once)"
    ]


def _with(usable: float, row: int, rows: int) -> str:
    fitting = int(usable // row)
    return f"{_size(row)} a row, so that {'the batch fits' if fitting >= rows else f'{max(fitting, 0)} rows fit'}"


def _bytes_of_row(trainer, before: dict, precision: str) -> int:
    """What a row of the batch adds to a step's peak: what the tape keeps of it, and what lies beside it while walking.

    The forward passes of one row and of two are compared, so that what every batch needs once does not count.
    """
    inputs, targets = (backend.to_device(ids[:2], trainer.model.device) for ids in trainer.next_batches()[0])
    kept = []
    for rows in (1, 2):
        with compute_in(precision):
            loss = mean_loss(trainer.model, inputs[:rows], targets[:rows])
        kept.append(kept_bytes(loss))
        del loss
    set_positions(trainer, before)
    if len(inputs) == 1:
        return kept[0]
    logits = trainer.config.context * getattr(getattr(trainer.model, "config", None), "vocab_size", 0) * 4
    return max(kept[1] - kept[0], 1) + 2 * logits  # their gradient, and a copy on the way


def _still_to_come(trainer) -> int:
    """Bytes of the gradients, and of the optimiser's state where its first step has not been taken."""
    weights = sum(p.data.nbytes for p in trainer.parameters if p.requires_grad)
    names = sum(len(trainer.optimizer.array_names(group)) for group in trainer.optimizer.param_groups[:1])
    return weights * (1 if trainer.optimizer.state else 1 + names)


def _recomputed(model) -> str | None:
    """What the layers of a model recompute; None where they can't."""
    return next((module.recompute for module in model.modules() if isinstance(module, nn.Layer)), None)


def _divisor(total: int, most: int) -> int:
    """The largest divisor of `total` that is at most `most`, 1 at least."""
    return max((d for d in range(1, max(most, 1) + 1) if total % d == 0), default=1)


def _size(count: float) -> str:
    unit = min(int(math.log(max(count, 1), 1024)), 3)
    return f"{max(count, 0) / 1024**unit:,.1f} {('bytes', 'KiB', 'MiB', 'GiB')[unit]}"
