"""What may be hung on a training run: an object with some of these methods."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Callback"]


class Callback:
    """Is told what happens in `Trainer.fit`; derive from it and define what is of interest.

    >>> class Print(Callback):
    ...     def on_step(self, trainer, row):
    ...         print(row["step"], row["loss"])
    """

    def on_start(self, trainer) -> None:
        """Before the first step, after a resume if there was one."""

    def on_step(self, trainer, row: dict) -> None:
        """After a step, with its row of metrics.jsonl."""

    def on_checkpoint(self, trainer, path: Path) -> None:
        """After a checkpoint was written."""

    def on_notice(self, trainer, message: str) -> None:
        """When there is something that a person should know, a damaged checkpoint say."""

    def on_end(self, trainer) -> None:
        """After the last step of this call, `trainer.outcome` says why it was the last."""
