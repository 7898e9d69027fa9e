"""BERT's config."""

from __future__ import annotations

from dataclasses import dataclass

from minilm import nn

from .pretrained import Config

__all__ = ["BertConfig"]

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclass
class BertConfig(Config):
    """The shape of a BERT; the defaults are bert-base-uncased's (110M parameters).

    `id2label` names the classes that a head tells apart, `num_labels` counts them; either gives the other. Raises
    ValueError for sizes that do not fit, probabilities outside [0, 1], and names that are not known.

    >>> BertConfig(id2label={0: "negative", 1: "positive", 2: "neither"}).num_labels
    3
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # before a classifier; None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0  # its word embedding begins as zeros and is not learnt as an input
    tie_word_embeddings: bool = True
    position_embedding_type: str = "absolute"
    problem_type: str | None = None  # what a sequence classifier's labels are; None: told from the labels
    num_labels: int | None = None
    id2label: dict[int, str] | None = None

    model_type = "bert"
    refused = ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config")

    def __post_init__(self) -> None:
        self.id2label = _labels(self.num_labels, self.id2label)
        self.num_labels = len(self.id2label)
        self._check_counts(
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "num_labels",
        )  # fmt: skip
        self._check_probabilities("hidden_dropout_prob", "attention_probs_dropout_prob")
        if self.classifier_dropout is not None:
            self._check_probabilities("classifier_dropout")
        nn.activation(self.hidden_act)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id is a token, 0 to {self.vocab_size - 1}, or None; got {self.pad_token_id}")
        if self.position_embedding_type != "absolute":
            raise ValueError(
                f"position_embedding_type {self.position_embedding_type!r} is not supported: positions are 'absolute'"
            )
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(f"problem_type is one of {', '.join(PROBLEM_TYPES)} or None; got {self.problem_type!r}")
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ValueError("one of num_labels = 1 classes is no choice; take two, or problem_type 'regression'")

    def to_dict(self) -> dict:
        """As the base class's; the labels are written as transformers does, unless they are the usual two."""
        values = super().to_dict()
        del values["num_labels"]
        if values["id2label"] == _labels(2, None):
            del values["id2label"]
        else:
            values["label2id"] = {label: i for i, label in self.id2label.items()}
        return values


def _labels(num_labels: int | None, id2label: dict | None) -> dict[int, str]:
    if id2label is None:
        return {i: f"LABEL_{i}" for i in range(2 if num_labels is None else num_labels)}
    labels = {int(i): label for i, label in id2label.items()}  # the keys of a JSON object are strings
    if sorted(labels) != list(range(len(labels))) or num_labels not in (None, len(labels)):
        wanted = "" if num_labels is None else f" up to num_labels = {num_labels}"
        raise ValueError(f"id2label names the classes 0, 1, 2, ...{wanted}; got {id2label}")
    return labels
