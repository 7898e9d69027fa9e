"""Arrays of a test's table where the test runs."""

from __future__ import annotations

from minilm import backend

__all__ = ["beside", "record_each_time"]


def beside(x, array):
    """`array`, a NumPy array, on the device of `x`, an array or a Tensor."""
    return backend.to_device(array, backend.device_of(getattr(x, "_data", x)))


def record_each_time(monkeypatch) -> None:
    """Has graphs on CuPy's stand-in, which does what it records but can't do it again, recorded at every call."""
    on_cuda = backend.Graph._on_cuda

    def recorded(graph, arrays):
        graph.warmup, graph._graph = 0, None
        return on_cuda(graph, arrays)

    monkeypatch.setattr(backend.Graph, "_on_cuda", recorded)
