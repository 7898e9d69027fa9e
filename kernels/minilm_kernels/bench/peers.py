"""Other libraries' kernels, on the same inputs in the same rounds. The only module that loads them, where installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from .errors import LabError
from .problem import Problem
from .workload import Peer

__all__ = ["PEERS", "Opponent", "available", "load", "opponents"]

PEERS = ("torch",)  # each the name of the library to import and of the workloads' method that says what to call


@dataclass
class Opponent:
    """A peer on a problem's inputs: a call to time, and its results as NumPy arrays."""

    name: str
    call: Callable
    results: Callable[[], tuple]
    context: Callable
    peak_bytes: Callable[[Callable], int | None]


def available(name: str) -> bool:
    """Whether a peer can be loaded."""
    return importlib.util.find_spec(name) is not None


def load(name: str):
    """The peer's module. LabError, with what to install, if it is not there."""
    if name not in PEERS:
        raise LabError(f"there is no peer {name!r}; there are: {', '.join(PEERS)}, or 'none'")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LabError(f"the peer {name} is not installed: pip install {name}, or choose --peers none") from error


def opponents(name: str, problem: Problem) -> list[Opponent]:
    """What the peer `name` has to offer against our implementations of the problem."""
    library = load(name)
    described = getattr(problem.workload, name)(library, problem.mode, problem.inputs.settings)
    return [_opponent(library, peer, problem) for peer in described if problem.device.name in peer.devices]


def _opponent(torch, peer: Peer, problem: Problem) -> Opponent:
    @contextmanager
    def context():
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(peer.context())
            yield

    device = problem.device.name
    peak_bytes = partial(_peak_bytes, torch) if device == "cuda" else problem.device.peak_bytes
    if peer.gradients is not None and problem.mode == "backward":
        call = _differentiation(torch, peer, problem)
        return Opponent(peer.name, call, lambda: _to_numpy(call(), problem.dtype), context, peak_bytes)

    tensors = _to_torch(torch, problem.fresh().args, device)

    def results():
        args = _to_torch(torch, problem.fresh().args, device)
        with context():
            returned = peer.function(*args)
        return _to_numpy(problem.workload.results(returned, args), problem.dtype)

    return Opponent(peer.name, lambda: peer.function(*tensors), results, context, peak_bytes)


def _peak_bytes(torch, function: Callable) -> int:
    """The most that a call takes of a GPU's memory, as torch's allocator counts it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = function()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def _differentiation(torch, peer: Peer, problem: Problem) -> Callable:
    """The backward pass alone: the graph is made once, at the first call, and kept."""

    @cache
    def graph():
        device = problem.device.name
        tensors = list(_to_torch(torch, problem.inputs.forward.args, device))
        leaves = [tensors[place] for place in peer.gradients]
        wanted = [leaf.requires_grad_() for leaf in leaves if leaf is not None]
        with torch.enable_grad(), peer.context():
            out = peer.function(*tensors)
        outputs = out if isinstance(out, tuple) else (out,)
        return outputs, leaves, wanted, _to_torch(torch, problem.inputs.args[: len(outputs)], device)

    def call():
        outputs, leaves, wanted, gradients = graph()
        found = iter(torch.autograd.grad(outputs, wanted, gradients, retain_graph=True))
        return tuple(None if leaf is None else next(found) for leaf in leaves)

    return call


def _to_torch(torch, value, device: str):
    if isinstance(value, (tuple, list)):
        return type(value)(_to_torch(torch, item, device) for item in value)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "V":  # bfloat16, which torch does not take from NumPy
        return torch.from_numpy(value.astype(np.float32)).to(device, torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(value)).to(device)


def _to_numpy(results, dtype: np.dtype) -> tuple:
    """Tensors as arrays, bfloat16 as ours; numbers and None as they are."""

    def convert(value):
        if value is None or isinstance(value, float):
            return value
        value = value.detach().cpu()
        return value.float().numpy().astype(dtype) if dtype.kind == "V" else value.numpy()

    return tuple(convert(value) for value in (results if isinstance(results, tuple) else (results,)))
