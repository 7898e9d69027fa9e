"""adamw as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload

_LARGEST = 2**22  # elements of one parameter


class AdamW(Workload):
    operation = "adamw"
    sizes = ("P",)  # parameters in all
    x = "P"
    presets = {
        "default": [(10_000_000,), (1_000_000,), (10_000,)],
        "parameters": [(n,) for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)],
        "large": [(100_000_000,)],
    }
    options = {"decoupled": (True,), "grad_scale": (1.0,)}
    awkward = {"P": (1, 2, 7, 65, 1000, 70_001), "decoupled": (True, False), "grad_scale": (1.0, 0.3)}
    layouts = ("contiguous",)  # others are refused
    in_place = True

    def build(self, draw, *, P, decoupled, grad_scale):
        return self.state(draw, P, decoupled=decoupled, grad_scale=grad_scale)

    def state(self, draw, P, **settings):
        """Parameters, gradients and means of P numbers in all, and an optimiser's settings."""
        params, grads, exp_avgs = ([draw.normal(n) for n in _parts(P)] for _ in range(3))
        exp_avg_sqs = [np.abs(draw.normal(n)) for n in _parts(P)]
        common = {"lr": 1e-3, "weight_decay": 0.1, "step": 3}
        return Inputs((params, grads, exp_avgs, exp_avg_sqs), common | settings)

    def flops(self, mode, *, P, decoupled, grad_scale):
        return 15 * P

    def cancelling(self, mode, inputs, exact):
        """A mean is moved by its difference from the gradient."""
        _, grads, exp_avgs, _ = inputs.args
        return max(np.abs(array).max(initial=0) for array in (*grads, *exp_avgs))

    def results(self, returned, args):
        params, _, exp_avgs, exp_avg_sqs = args
        return (*params, *exp_avgs, *exp_avg_sqs)

    def bytes_moved(self, mode, inputs, results):
        return 7 * sum(param.nbytes for param in inputs.args[0])  # three read and written, the gradients read

    def torch(self, torch, mode, settings):
        function = torch._fused_adamw_ if settings["decoupled"] else torch._fused_adam_
        # torch divides gradients by its scale; both functions count steps up before they use them, in tensors.
        scale = None if settings["grad_scale"] == 1 else torch.tensor(1 / settings["grad_scale"])

        def run(params, grads, exp_avgs, exp_avg_sqs):
            steps = [torch.tensor(float(settings["step"]))] * len(params)
            function(
                *(
                    params,
                    [grad.clone() for grad in grads] if scale is not None else grads,
                    exp_avgs,
                    exp_avg_sqs,
                    [],
                    steps,
                ),
                lr=settings["lr"],
                beta1=0.9,
                beta2=0.999,
                weight_decay=settings["weight_decay"],
                eps=1e-8,
                amsgrad=False,
                maximize=False,
                grad_scale=scale,
            )

        return [Peer("torch fused", run)]


def _parts(P: int) -> list[int]:
    """Sizes that come to P, as unequal as those of a model: a vector for each matrix."""
    sizes = []
    while P:
        sizes.append(min(P, _LARGEST, max(1, P // 3)))
        P -= sizes[-1]
    return sizes


WORKLOAD = AdamW()
