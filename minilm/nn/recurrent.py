"""LSTM and GRU: what transformers replaced. Weight names and the order of the gates are torch's."""

from __future__ import annotations

from minilm import backend, ops
from minilm.autograd import Tensor

from . import init
from .layers import Dropout
from .module import Module

__all__ = ["GRU", "LSTM"]


class _Recurrent(Module):
    """Layers of cells, each walking along the sequence: what LSTM and GRU share."""

    gates: int  # sums that a cell takes for each of its features

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        generator: backend.Generator | None = None,
    ):
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(
                f"input_size, hidden_size and num_layers are 1 or more; got {input_size}, {hidden_size}, {num_layers}"
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional = bidirectional
        self.dropout = Dropout(dropout)
        sums = self.gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * len(self._ways)
            for way in self._ways:
                shapes = {"weight_ih": (sums, width), "weight_hh": (sums, hidden_size)}
                shapes |= {"bias_ih": (sums,), "bias_hh": (sums,)} if bias else {}
                for name, shape in shapes.items():
                    setattr(self, f"{name}_l{layer}{way}", init.kaiming_uniform(shape, hidden_size, generator))

    @property
    def _ways(self) -> tuple[str, ...]:
        """What the names of the weights of each direction end in."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def forward(self, x, state=None, mask=None):
        """(outputs (B, T, W), last state) for x (B, T, C); W is `hidden_size`, twice that if bidirectional.

        `state` is what an earlier call returned, zero if None. `mask` (B, T) is 1 for tokens and 0 for padding, on
        either side: padding leaves the state as it is, and its outputs are zero. Raises ValueError for other shapes.
        """
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x must be (B, T, {self.input_size}); got shape {tuple(x.shape)}")
        alive = self._alive(x, mask)
        states = self._split_state(x, state)
        x, last = ops.swapaxes(x, 0, 1), []  # time first: what a step reads lies in one piece
        for layer in range(self.num_layers):
            outputs = []
            for way in self._ways:
                names = [f"{name}_l{layer}{way}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                weights = [getattr(self, name, None) for name in names]
                output, *after = self._along(x, *weights, states[len(last)], alive, bool(way))
                outputs.append(output)
                last.append(after)
            x = outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=2)
            if layer + 1 < self.num_layers:
                x = self.dropout(x)
        return ops.swapaxes(x, 0, 1), self._join_state(last)

    def _along(self, x, weight_ih, weight_hh, bias_ih, bias_hh, state: tuple, alive, reverse: bool) -> tuple:
        """One layer in one direction: its outputs (T, B, H), and the parts of its last state."""
        raise NotImplementedError

    def _alive(self, x, mask):
        """Whether each token is one, (T, B); None if all are."""
        if mask is None:
            return None
        values = backend.to_numpy(getattr(mask, "_data", mask))
        alive = values.astype(bool)
        if alive.shape != tuple(x.shape[:2]):
            raise ValueError(f"mask must be {tuple(x.shape[:2])}, one entry a token; got {alive.shape}")
        if not (alive == values).all():
            raise ValueError("mask holds 1 for tokens and 0 for padding; there are other numbers in it")
        return None if alive.all() else backend.array_module(getattr(x, "_data", x)).asarray(alive.T)

    def _split_state(self, x, state) -> list[tuple]:
        """The states of the layers and directions, one tuple each."""
        count, parts = self.num_layers * len(self._ways), 2 if isinstance(self, LSTM) else 1
        given = state if isinstance(state, tuple) else (state,) * parts
        data = getattr(x, "_data", x)
        shape = (count, data.shape[0], self.hidden_size)
        if state is None:
            zeros = Tensor(backend.array_module(data).zeros(shape[1:], data.dtype))
            return [(zeros,) * parts] * count
        if len(given) != parts or any(tuple(part.shape) != shape for part in given):
            raise ValueError(f"the state must be {' and '.join([str(shape)] * parts)}; got {[p.shape for p in given]}")
        return [tuple(part[i] for part in given) for i in range(count)]

    def _join_state(self, states: list):
        parts = tuple(ops.stack(list(part), axis=0) for part in zip(*states))
        return parts if isinstance(self, LSTM) else parts[0]

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bidirectional={self.bidirectional}"
        )


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); its state is a pair (h, c), each (layers, B, H).

    >>> import numpy as np
    >>> outputs, (h, c) = LSTM(3, 5)(np.ones((2, 4, 3), np.float32))
    >>> outputs.shape, h.shape
    ((2, 4, 5), (1, 2, 5))
    """

    gates = 4

    def _along(self, x, weight_ih, weight_hh, bias_ih, bias_hh, state, alive, reverse):
        sums = ops.linear(x, weight_ih, None if bias_ih is None else bias_ih + bias_hh)
        return ops.lstm(sums, weight_hh, *state, alive, reverse)


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078); the state is h (layers, B, H).

    >>> import numpy as np
    >>> outputs, h = GRU(3, 5, num_layers=2)(np.ones((2, 4, 3), np.float32))
    >>> outputs.shape, h.shape
    ((2, 4, 5), (2, 2, 5))
    """

    gates = 3

    def _along(self, x, weight_ih, weight_hh, bias_ih, bias_hh, state, alive, reverse):
        return ops.gru(ops.linear(x, weight_ih, bias_ih), weight_hh, bias_hh, *state, alive, reverse)
