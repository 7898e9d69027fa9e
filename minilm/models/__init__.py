"""The models, each family in one file that reads from top to bottom."""

from .bart import BartConfig, BartForConditionalGeneration
from .bert import Bert, BertConfig
from .bert_heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from .causal_lm import CausalLM
from .gpt2 import GPT2, GPT2Config
from .llama import Llama, Mistral, Qwen2
from .llama_config import LlamaConfig, MistralConfig, Qwen2Config
from .loading import load
from .marian import MarianConfig, MarianMTModel
from .ngram import NGram
from .output import (
    CausalLMOutput,
    EncoderOutput,
    HeadOutput,
    PreTrainingOutput,
    QuestionAnsweringOutput,
    Seq2SeqLMOutput,
)
from .pretrained import Config, PretrainedModel
from .recurrent import RecurrentConfig, RecurrentLM, RecurrentSeq2Seq
from .sentence import SentenceEmbedder
from .t5 import T5Config, T5ForConditionalGeneration

__all__ = [
    "GPT2",
    "BartConfig",
    "BartForConditionalGeneration",
    "Bert",
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "CausalLM",
    "CausalLMOutput",
    "Config",
    "EncoderOutput",
    "GPT2Config",
    "HeadOutput",
    "Llama",
    "LlamaConfig",
    "MarianConfig",
    "MarianMTModel",
    "Mistral",
    "MistralConfig",
    "NGram",
    "PreTrainingOutput",
    "PretrainedModel",
    "QuestionAnsweringOutput",
    "Qwen2",
    "Qwen2Config",
    "RecurrentConfig",
    "RecurrentLM",
    "RecurrentSeq2Seq",
    "SentenceEmbedder",
    "Seq2SeqLMOutput",
    "T5Config",
    "T5ForConditionalGeneration",
    "load",
]
