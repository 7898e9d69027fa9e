"""The ways to hand over parameters: tensors, or pairs of name and tensor; and what an array of one must be."""

from __future__ import annotations

from minilm import backend
from minilm.autograd import Tensor

__all__ = ["named_tensors", "tensors", "working_array"]


def named_tensors(parameters, what: str = "params") -> list[tuple[str | None, Tensor]]:
    """`(name or None, tensor)` for each item of an iterable of tensors or of pairs; TypeError for anything else."""
    if hasattr(parameters, "named_parameters"):
        raise TypeError(
            f"{what} is a {type(parameters).__name__}; expected what its .parameters() or .named_parameters() gives"
        )
    if isinstance(parameters, (Tensor, str, dict)) or not hasattr(parameters, "__iter__"):
        hint = "pass dict.items()" if isinstance(parameters, dict) else "put a single tensor in a list"
        raise TypeError(
            f"{what} is a {type(parameters).__name__}; expected an iterable of tensors or (name, tensor) pairs: {hint}"
        )
    return [_pair(item, f"{what}[{i}]") for i, item in enumerate(parameters)]


def _pair(item, where: str) -> tuple[str | None, Tensor]:
    if isinstance(item, Tensor):
        return None, item
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Tensor):
        return item
    raise TypeError(f"{where} is a {type(item).__name__}; expected a minilm.Tensor or a (name, tensor) pair")


def tensors(parameters) -> list[Tensor]:
    """The tensors of an iterable of tensors or pairs, each once (tied weights come up twice); or the one given."""
    if isinstance(parameters, Tensor):
        return [parameters]
    return list({id(tensor): tensor for _, tensor in named_tensors(parameters)}.values())


def working_array(name: str, tensor: Tensor):
    """The array to update in place: the tensor's own, or a contiguous copy that is to be written back to it."""
    array = tensor.data
    # Memory-mapped weights come read-only; a kernel that writes through an address would end the process.
    if not getattr(array.flags, "writeable", True):
        raise ValueError(f"parameter {name} is read-only and can't be updated in place; give it a copy of its array")
    return array if array.flags.c_contiguous else backend.array_module(array).ascontiguousarray(array)
