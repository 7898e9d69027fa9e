"""The models, each family in one file that reads from top to bottom."""

from .bert import Bert, BertConfig
from .bert_heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from .gpt2 import GPT2, GPT2Config
from .llama import Llama, LlamaConfig, Mistral, MistralConfig, Qwen2, Qwen2Config
from .loading import load
from .output import CausalLMOutput, EncoderOutput, HeadOutput, PreTrainingOutput, QuestionAnsweringOutput
from .pretrained import Config, PretrainedModel

__all__ = [
    "GPT2",
    "Bert",
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "CausalLMOutput",
    "Config",
    "EncoderOutput",
    "GPT2Config",
    "HeadOutput",
    "Llama",
    "LlamaConfig",
    "Mistral",
    "MistralConfig",
    "PreTrainingOutput",
    "PretrainedModel",
    "QuestionAnsweringOutput",
    "Qwen2",
    "Qwen2Config",
    "load",
]
