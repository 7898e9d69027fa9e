"""The models, each in one file that reads from top to bottom."""

from .gpt2 import GPT2, GPT2Config
from .output import CausalLMOutput
from .pretrained import Config, PretrainedModel

__all__ = ["GPT2", "CausalLMOutput", "Config", "GPT2Config", "PretrainedModel"]
