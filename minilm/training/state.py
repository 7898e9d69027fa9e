"""All that the next step of a training run depends on: into a checkpoint, and out of it."""

from __future__ import annotations

import json

from minilm.checkpoint import Checkpoint, CheckpointError

__all__ = ["collect", "positions", "restore", "set_positions"]

_COUNTERS = ("step", "best_step", "best_val_loss", "evaluations_since_best")


def collect(trainer) -> dict:
    """What `CheckpointStore.save` takes after the step: tensors, state, files, and the best checkpoint to be kept."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {"model": trainer.model.state_dict(), "optimizer": optimizer["arrays"]}
    state = {
        **{name: getattr(trainer, name) for name in _COUNTERS},
        **positions(trainer),
        "schedule": trainer.schedule.state_dict(),
        "optimizer": optimizer["settings"],
    }
    if trainer.work.scaler is not None:
        state["grad_scaler"] = trainer.work.scaler.state_dict()
    if trainer.ema is not None:
        ema = trainer.ema.state_dict()
        tensors["ema"], state["ema"] = ema["arrays"], ema["settings"]
    # With its config beside the weights, a checkpoint is a model's folder.
    to_dict = getattr(getattr(trainer.model, "config", None), "to_dict", None)
    files = {} if to_dict is None else {"config.json": json.dumps(to_dict(), indent=2)}
    best = () if trainer.best_step is None else (trainer.best_step,)
    return {"tensors": tensors, "state": state, "files": files, "refers_to": best}


def restore(trainer, checkpoint: Checkpoint) -> None:
    """Puts a trainer where the checkpoint was taken; CheckpointError or ValueError if they do not fit."""
    tensors, state = checkpoint.tensors, checkpoint.state
    if ("ema" in tensors) != (trainer.ema is not None):
        has, wants = ("an", "no") if "ema" in tensors else ("no", "an")
        raise CheckpointError(f"{checkpoint.path} has {has} average of the weights, and train.ema_decay wants {wants}")
    trainer.model.load_state_dict(tensors["model"])
    trainer.optimizer.load_state_dict({"arrays": tensors["optimizer"], "settings": state["optimizer"]})
    trainer.schedule.load_state_dict(state["schedule"])
    if trainer.ema is not None:
        trainer.ema.load_state_dict({"arrays": tensors["ema"], "settings": state["ema"]})
    if trainer.work.scaler is not None and "grad_scaler" in state:  # a run may have begun in another precision
        trainer.work.scaler.load_state_dict(state["grad_scaler"])
    set_positions(trainer, state)
    for name in _COUNTERS:
        setattr(trainer, name, state[name])


def positions(trainer) -> dict:
    """Where the data and the random streams stand."""
    return {
        "data": trainer.batches.state(),
        "streams": {name: stream.state() for name, stream in trainer.streams.items()},
    }


def set_positions(trainer, saved: dict) -> None:
    """Puts the data and the random streams back to where they stood."""
    if set(saved["streams"]) != set(trainer.streams):
        raise CheckpointError(
            f"the saved random streams are {sorted(saved['streams'])}, and this trainer has {sorted(trainer.streams)}"
        )
    trainer.batches.set_state(saved["data"])
    for name, stream in trainer.streams.items():
        stream.set_state(saved["streams"][name])
