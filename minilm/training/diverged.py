"""A step that gave NaN or infinity, run again to find the operation where it began."""

from __future__ import annotations

import math

from minilm import backend
from minilm.autograd import detect_anomaly

from .state import set_positions

__all__ = ["DivergedError", "diagnose"]


class DivergedError(ArithmeticError):
    """The loss or a gradient became NaN or infinite; the message names the operation where it began."""


def diagnose(trainer, before: dict, loss: float, norm: float) -> DivergedError:
    """Runs the step that began at the positions `before` again, every operation watched; what to raise."""
    what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
    set_positions(trainer, before)
    trainer.optimizer.zero_grad()
    spoilt = [name for name, p in trainer.model.named_parameters() if not _is_finite(p.data)]
    if spoilt:
        more = f" and {len(spoilt) - 1} more" if len(spoilt) > 1 else ""
        cause = f"The weights held NaN or infinity before the step, in {spoilt[0]}{more}"
    else:
        cause = _first_bad_operation(trainer)
    set_positions(trainer, before)
    last = trainer.store.steps()[-1:] if trainer.store else []
    kept = f"; the last checkpoint is {trainer.store.path(last[0])}" if last else ""
    return DivergedError(
        f"step {trainer.step + 1} gave {what}, so training stops before the weights are changed. {cause}. "
        f"Lower the learning rate, clip harder or warm up longer{kept}"
    )


def _first_bad_operation(trainer) -> str:
    try:
        with detect_anomaly():
            trainer.work.gradients(trainer.next_batches())
        return "Run again with every operation watched, it gave no NaN or infinity"
    except FloatingPointError as error:
        message = str(error)
        return message[0].upper() + message[1:]
    finally:
        trainer.optimizer.zero_grad()


def _is_finite(array) -> bool:
    return bool(backend.array_module(array).isfinite(array).all())
