"""embedding_backward as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class Embedding(Workload):
    operation = "embedding"
    sizes = ("N", "V", "C")
    x = "N"
    presets = {
        "default": [(4096, 50257, 768), (4096, 256, 384), (64, 512, 64)],
        "rows": [(n, 50257, 768) for n in (64, 256, 1024, 4096, 16384)],
    }
    awkward = {"N": (0, 1, 2, 70, 300), "V": (1, 2, 70), "C": (1, 3, 17, 300)}
    layouts = ("contiguous", "transposed", "strided", "reversed")
    in_place = True

    def build(self, draw, *, N, V, C):
        return Inputs((draw.normal(N, C), draw.integers(0, V, N), draw.normal(V, C)))

    def flops(self, mode, *, N, V, C):
        return N * C

    def bytes_moved(self, mode, inputs, results):
        g, indices, _ = inputs.args
        return 3 * g.nbytes + indices.nbytes  # rows of out that were not looked up stay where they are

    def results(self, returned, args):
        return (args[2],)

    def cancelling(self, mode, inputs, exact):
        g, _, _ = inputs.args
        return abs(g).sum(axis=0).max(initial=0)  # if all rows went to one

    def torch(self, torch, mode, settings):
        return [Peer("torch index_add_", lambda g, indices, out: out.index_add_(0, indices, g))]


WORKLOAD = Embedding()
