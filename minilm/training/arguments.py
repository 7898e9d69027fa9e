"""What a trainer is given, looked at before the first step, where a mistake is cheap."""

from __future__ import annotations

from .config import TrainConfig

__all__ = ["check_arguments", "check_folder", "mean_loss"]

_EVENTS = ("on_start", "on_step", "on_checkpoint", "on_notice", "on_end")


def check_arguments(optimizer, schedule, batches, config, callbacks) -> None:
    """TypeError that names the first of them that can't be what it is to be."""
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is a {type(config).__name__}; expected a TrainConfig: TrainConfig(steps=1000)")
    _has(optimizer, "optimizer", ("param_groups", "step", "zero_grad"), "one of minilm.optim, AdamW say")
    _has(schedule, "schedule", ("apply", "observe"), 'a Schedule: make_schedule("constant") changes nothing')
    _has(batches, "batches", ("next_batch", "state", "set_state"), "a BatchLoader, or anything with these methods")
    for callback in callbacks:
        _has(callback, "a callback", _EVENTS, "an object whose class derives from Callback")


def _has(value, what: str, methods: tuple[str, ...], expected: str) -> None:
    missing = [name for name in methods if not hasattr(value, name)]
    if missing:
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise TypeError(f"{what} is {kind}, without {', '.join(missing)}; expected {expected}")


def check_folder(folder, store, metrics) -> None:
    """FileExistsError before a first step in a folder that holds another run's: the two would be mixed up."""
    if store.steps() or metrics.read():
        raise FileExistsError(
            f"{folder} holds the metrics or checkpoints of another run; go on with that one by trainer.resume(), "
            "or give another folder"
        )


def mean_loss(model, inputs, targets):
    """The mean loss of a batch, a Tensor; TypeError for a model that gives none."""
    found = model(inputs, targets=targets)
    loss = getattr(found, "loss", None)
    if loss is None:
        raise TypeError(
            f"{type(model).__name__}(inputs, targets=targets) gave a {type(found).__name__}, and no loss in it; "
            "expected a CausalLMOutput(logits, loss), or any object with the mean loss of the batch as .loss"
        )
    return loss
