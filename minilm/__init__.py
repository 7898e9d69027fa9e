"""minilm: a transformer library from scratch, on NumPy or CuPy arrays."""

from . import autograd, backend, ops
from .autograd import Tensor, autocast, enable_grad, grad, no_grad, tensor
from .backend import manual_seed

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "autocast",
    "autograd",
    "backend",
    "enable_grad",
    "grad",
    "manual_seed",
    "no_grad",
    "ops",
    "tensor",
]

_LAZY = (
    "checkpoint",
    "data",
    "evaluation",
    "generation",
    "models",
    "nn",
    "optim",
    "serving",
    "tokenization",
    "training",
)


def __getattr__(name: str):
    """The rooms above the operations are imported when first named, so that `import minilm` stays fast."""
    if name in _LAZY:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
