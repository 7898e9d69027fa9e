"""The models, each family in one file that reads from top to bottom."""

from .gpt2 import GPT2, GPT2Config
from .llama import Llama, LlamaConfig, Mistral, MistralConfig, Qwen2, Qwen2Config
from .loading import load
from .output import CausalLMOutput, EncoderOutput, HeadOutput
from .pretrained import Config, PretrainedModel

__all__ = [
    "GPT2",
    "CausalLMOutput",
    "Config",
    "EncoderOutput",
    "GPT2Config",
    "HeadOutput",
    "Llama",
    "LlamaConfig",
    "Mistral",
    "MistralConfig",
    "PretrainedModel",
    "Qwen2",
    "Qwen2Config",
    "load",
]
