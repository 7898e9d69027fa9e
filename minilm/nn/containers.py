"""Modules that hold others in an order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .module import Module

__all__ = ["ModuleList", "Sequential"]


class ModuleList(Module):
    """A list of modules; their names are their places: "0", "1", ...

    >>> from minilm.nn import Linear
    >>> layers = ModuleList(Linear(2, 2, bias=False) for _ in range(3))
    >>> len(layers), [name for name, _ in layers[1:].named_parameters()]
    (3, ['0.weight', '1.weight'])
    """

    def __init__(self, modules: Iterable[Module] = (), *more):
        if more or (isinstance(modules, Module) and not isinstance(modules, ModuleList)):
            raise TypeError("ModuleList takes its modules in a list: ModuleList([a, b])")
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Adds a module at the end; returns the list. Raises TypeError for what is no module."""
        if not isinstance(module, Module):
            hint = "; give them one by one, Sequential(*modules)" if isinstance(self, Sequential) else ""
            raise TypeError(f"{type(self).__name__} holds modules; got {type(module).__name__}{hint}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice):
        chosen = list(self)[index]
        return ModuleList(chosen) if isinstance(index, slice) else chosen

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, str(range(len(self))[index]), module)  # (a range knows negative and too large indices)


class Sequential(ModuleList):
    """Modules run one after the other, each on what the one before it returned.

    >>> import numpy as np
    >>> from minilm.nn import LayerNorm, Linear
    >>> model = Sequential(Linear(3, 8), LayerNorm(8), Linear(8, 1))
    >>> model(np.ones((5, 3), np.float32)).shape
    (5, 1)
    """

    def __init__(self, *modules: Module):
        super().__init__(modules)

    def forward(self, x):
        for module in self:
            x = module(x)
        return x

    def __getitem__(self, index: int | slice):
        chosen = list(self)[index]
        return Sequential(*chosen) if isinstance(index, slice) else chosen
