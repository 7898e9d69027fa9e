"""Decoding: from a model that says what comes next to text. It needs nothing of a model but to be called."""

from .generate import GenerationMixin, generate
from .options import GenerationConfig
from .output import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput
from .prefix import PrefixCache
from .processors import LogitsProcessors
from .sampling import SamplingOptions

__all__ = [
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerationConfig",
    "GenerationMixin",
    "LogitsProcessors",
    "PrefixCache",
    "SamplingOptions",
    "generate",
]
