"""What models return: their names are transformers'."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.autograd import Tensor

__all__ = [
    "CausalLMOutput", "EncoderOutput", "HeadOutput", "PreTrainingOutput", "QuestionAnsweringOutput", "Seq2SeqLMOutput",
]  # fmt: skip


@dataclass
class CausalLMOutput:
    """Of a language model: logits (B, T, V), and the loss where targets were given.

    On request the hidden states (B, T, C) before, between and after the layers, and each layer's attention weights
    (B, H, T, S).

    >>> import numpy as np
    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> out = model(np.array([[1, 2, 3]]), labels=np.array([[1, 2, 3]]), output_attentions=True)
    >>> out.logits.shape, out.loss.shape, out.attentions[0].shape
    ((1, 3, 11), (), (1, 2, 3, 3))
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class EncoderOutput:
    """Of an encoder: hidden states (B, T, C) after its last layer; of a model with a pooler its output (B, C) too."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class HeadOutput:
    """Of a model with a head that classifies texts or tokens: its logits, and the loss where labels were given."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PreTrainingOutput:
    """Of BERT as it is pretrained: logits of words (B, T, V) and next sentences (B, 2), the sum of both losses."""

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class QuestionAnsweringOutput:
    """Of a model that finds an answer in a text: logits (B, T) of its start and its end, the mean of both losses."""

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class Seq2SeqLMOutput:
    """Of an encoder-decoder model: logits (B, T, V), the loss where labels were given, and what the encoder said.

    On request, of each side, the hidden states before, between and after the layers, and the attention weights; cross
    attentions (B, H, T, S) are the decoder's on the encoder's S tokens.

    >>> import numpy as np
    >>> from minilm.models import T5Config, T5ForConditionalGeneration
    >>> config = T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    >>> out = T5ForConditionalGeneration(config)(np.array([[5, 6, 7, 1]]), labels=np.array([[8, 9]]))
    >>> out.logits.shape, out.encoder_last_hidden_state.shape, out.loss.shape
    ((1, 2, 11), (1, 4, 8), ())
    """

    logits: Tensor
    loss: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
