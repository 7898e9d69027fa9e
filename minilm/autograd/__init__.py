"""The engine: tensors, the tape they are recorded on, and the walk back along it."""

from .arguments import Array
from .autocast import autocast, get_autocast_dtype
from .engine import backward, grad
from .gradcheck import GradientError, gradcheck, gradgradcheck
from .mode import detect_anomaly, enable_grad, is_grad_enabled, no_grad
from .operation import Operation, op
from .placed import Placed
from .precision import PRECISIONS, check_precision, compute_in, precision_notice
from .recompute import kept_bytes, recompute
from .tensor import Tensor, tensor
from .trace import Trace, trace

__all__ = [
    "PRECISIONS",
    "Array",
    "GradientError",
    "Operation",
    "Placed",
    "Tensor",
    "Trace",
    "autocast",
    "backward",
    "check_precision",
    "compute_in",
    "detect_anomaly",
    "enable_grad",
    "get_autocast_dtype",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "kept_bytes",
    "no_grad",
    "op",
    "precision_notice",
    "recompute",
    "tensor",
    "trace",
]
