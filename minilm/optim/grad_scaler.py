"""Loss scaling: gradients too small for float16 are computed as multiples of themselves."""

from __future__ import annotations

from . import settings

__all__ = ["GradScaler"]


class GradScaler:
    """The factor that a loss is multiplied by before the backward pass, found while training goes on.

    After `growth_interval` steps in a row with finite gradients it grows by `growth_factor`; after a step without,
    which is to be left out, it is multiplied by `backoff_factor` (Micikevicius et al. 2018, arXiv:1710.03740; the rule
    and its numbers are torch.amp.GradScaler's). Powers of two, so that scaling rounds nothing.

    >>> scaler = GradScaler(growth_interval=2)
    >>> w = minilm.tensor([2.0], requires_grad=True)
    >>> (w * w).sum().backward(scaler.scale)
    >>> w.grad.item() / scaler.scale
    4.0
    >>> [scaler.update(finite) or scaler.scale for finite in (False, True, True)]
    [32768.0, 32768.0, 65536.0]
    >>> scaler.skipped
    1
    """

    def __init__(
        self,
        scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        scale, growth_interval = settings.number("scale", scale), settings.count("growth_interval", growth_interval)
        if not scale > 0 or not growth_factor > 1 or not 0 < backoff_factor < 1 or growth_interval < 1:
            raise ValueError(
                f"scale {scale}, growth_factor {growth_factor}, backoff_factor {backoff_factor} and growth_interval "
                f"{growth_interval}: expected a positive scale, factors above and below 1, and 1 step or more"
            )
        self.scale, self.growth_factor, self.backoff_factor = scale, growth_factor, backoff_factor
        self.growth_interval = growth_interval
        self.finite_steps = 0  # since the scale last changed
        self.skipped = 0  # steps, in all

    def update(self, finite: bool) -> None:
        """After each step: whether the gradients were finite, and the step was taken."""
        if not finite:
            self.scale *= self.backoff_factor
            self.skipped += 1
            self.finite_steps = 0
            return
        self.finite_steps += 1
        if self.finite_steps == self.growth_interval:
            self.scale *= self.growth_factor
            self.finite_steps = 0

    def state_dict(self) -> dict:
        """All that is needed to go on from here, as JSON has it."""
        return {"scale": self.scale, "finite_steps": self.finite_steps, "skipped": self.skipped}

    def load_state_dict(self, saved: dict) -> None:
        """Goes on from `state_dict()`. ValueError for anything else."""
        if set(saved) != {"scale", "finite_steps", "skipped"}:
            raise ValueError(f"the state of a GradScaler has scale, finite_steps and skipped; got {', '.join(saved)}")
        self.scale = settings.positive("scale", saved["scale"])
        self.finite_steps = settings.count("finite_steps", saved["finite_steps"])
        self.skipped = settings.count("skipped", saved["skipped"])
