"""How weights begin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minilm import backend

from .module import Parameter

__all__ = ["kaiming_uniform", "left_out", "normal", "ones", "take_room", "zeros"]

_is_left_out = ContextVar("_is_left_out", default=False)
_room: ContextVar[list[float]] = ContextVar("_room")


@contextmanager
def left_out(most: float = math.inf) -> Iterator[None]:
    """Within it no random numbers are drawn: weights begin as whatever is in memory, for weights are to be loaded.

    ValueError before more than `most` numbers would be made: a file that lies about a size must not fill the memory.

    >>> from minilm import nn
    >>> with left_out():
    ...     layer = nn.Linear(2, 3)
    >>> layer.load_state_dict({"weight": np.ones((3, 2)), "bias": np.zeros(3)})
    ([], [])
    """
    token, room = _is_left_out.set(True), _room.set([most])
    try:
        yield
    finally:
        _is_left_out.reset(token)
        _room.reset(room)


def take_room(shape) -> None:
    """Called before numbers of that shape are made: ValueError where `left_out` leaves no room for them."""
    room = _room.get(None)
    if room is not None:
        room[0] -= math.prod(shape)
        if room[0] < 0:
            raise ValueError(f"the sizes are of a far larger model than the weights; {tuple(shape)} is too much")


def normal(shape, std: float = 0.02, generator: backend.Generator | None = None, dtype="float32") -> Parameter:
    """Normal numbers around zero; 0.02 is GPT-2's and BERT's choice.

    >>> weight = normal((1000,), std=0.02, generator=backend.Generator(0))
    >>> weight.dtype.name, weight.requires_grad, round(float(weight.data.std()), 3)
    ('float32', True, 0.02)
    """
    take_room(shape)
    if _is_left_out.get():
        return Parameter(np.empty(shape, backend.resolve_dtype(dtype)))
    return Parameter((generator or backend.default_generator).normal(shape, std=std, dtype=dtype))


def kaiming_uniform(shape, fan_in: int, generator: backend.Generator | None = None, dtype="float32") -> Parameter:
    """Numbers spread evenly over +-1/sqrt(fan_in): torch's choice for a Linear's weight and bias.

    >>> weight = kaiming_uniform((8, 4), fan_in=4, generator=backend.Generator(0))
    >>> bool(abs(weight.data).max() <= 0.5)
    True
    """
    take_room(shape)
    if _is_left_out.get():
        return Parameter(np.empty(shape, backend.resolve_dtype(dtype)))
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return Parameter((generator or backend.default_generator).uniform(shape, -bound, bound, dtype=dtype))


def zeros(shape, dtype="float32") -> Parameter:
    """Zeros, for biases.

    >>> zeros((2,))
    tensor([0., 0.], requires_grad=True)
    """
    take_room(shape)
    return Parameter(np.zeros(shape, backend.resolve_dtype(dtype)))


def ones(shape, dtype="float32") -> Parameter:
    """Ones, for the gain of a normalisation.

    >>> ones((2,))
    tensor([1., 1.], requires_grad=True)
    """
    take_room(shape)
    return Parameter(np.ones(shape, backend.resolve_dtype(dtype)))
