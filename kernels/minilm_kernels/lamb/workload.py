"""lamb as the lab runs it: adamw's parameters, with settings of its own."""

from __future__ import annotations

from ..adamw.workload import AdamW


class Lamb(AdamW):
    operation = "lamb"
    presets = {name: shapes for name, shapes in AdamW.presets.items() if name != "large"}
    options = {"adapt": (True,), "max_weight_norm": (None,)}
    awkward = {"P": AdamW.awkward["P"], "adapt": (True, False), "max_weight_norm": (None, 1.0)}

    def build(self, draw, *, P, adapt, max_weight_norm):
        return self.state(draw, P, adapt=adapt, max_weight_norm=max_weight_norm)

    def flops(self, mode, *, P, adapt, max_weight_norm):
        return (19 if adapt else 15) * P

    def bytes_moved(self, mode, inputs, results):
        # Once the norms are known, all but the gradients is read again.
        return (10 if inputs.settings["adapt"] else 7) * sum(param.nbytes for param in inputs.args[0])

    def torch(self, torch, mode, settings):
        return []  # it has none


WORKLOAD = Lamb()
