"""Decoding: from a model that says what comes next to text. It needs nothing of a model but to be called."""

from .generate import GenerationMixin, generate
from .sampling import SamplingOptions

__all__ = ["GenerationMixin", "SamplingOptions", "generate"]
