"""The differentiable operations, each with its gradient beside it. Arrays in, arrays out; a Tensor in, a Tensor out."""

from .activations import *
from .activations import __all__ as _activations
from .arithmetic import *
from .arithmetic import __all__ as _arithmetic
from .attention import *
from .attention import __all__ as _attention
from .attention_weights import *
from .attention_weights import __all__ as _attention_weights
from .compare import *
from .compare import __all__ as _compare
from .dropout import *
from .dropout import __all__ as _dropout
from .einsum import *
from .einsum import __all__ as _einsum
from .elementwise import *
from .elementwise import __all__ as _elementwise
from .gathering import *
from .gathering import __all__ as _gathering
from .indexing import *
from .indexing import __all__ as _indexing
from .linalg import *
from .linalg import __all__ as _linalg
from .loss import *
from .loss import __all__ as _loss
from .methods import install as _install
from .normalize import *
from .normalize import __all__ as _normalize
from .recurrent import *
from .recurrent import __all__ as _recurrent
from .recurrent_layers import *
from .recurrent_layers import __all__ as _recurrent_layers
from .reductions import *
from .reductions import __all__ as _reductions
from .rotary import *
from .rotary import __all__ as _rotary
from .shape import *
from .shape import __all__ as _shape

_install()

__all__ = sorted(
    _activations + _arithmetic + _attention + _attention_weights + _compare + _dropout + _einsum + _elementwise
    + _gathering + _indexing + _linalg + _loss + _normalize + _recurrent + _recurrent_layers + _reductions + _rotary
    + _shape
)  # fmt: skip
