"""BERT's heads: what it is pretrained for (masked words, next sentences), and what it is fine-tuned for.

A fresh head on a pretrained encoder: `model = BertForTokenClassification(config)`, then
`model.bert = Bert.from_pretrained(folder, add_pooling_layer=False)`. All heads take what `Bert` takes, and return its
hidden states and attentions on request.
"""

from __future__ import annotations

from minilm import nn, ops
from minilm.backend import Generator

from .bert import Bert, BertConfig, BertPreTrainedModel, Dense
from .output import HeadOutput, PreTrainingOutput, QuestionAnsweringOutput

__all__ = [
    "BertForMaskedLM", "BertForPreTraining", "BertForQuestionAnswering", "BertForSequenceClassification",
    "BertForTokenClassification",
]  # fmt: skip


class Transform(nn.Module):
    """The last layer before the vocabulary."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.dense = Dense(config.hidden_size, config.hidden_size, config, generator)
        self.act = nn.activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x):
        return self.LayerNorm(self.dense(x, self.act))


class Predictions(nn.Module):
    """Logits of each token of the vocabulary, by its word embedding unless the config says otherwise."""

    def __init__(self, config: BertConfig, generator: Generator | None):
        self.transform = Transform(config, generator)
        if config.tie_word_embeddings:
            self.bias = nn.init.zeros((config.vocab_size,))
            self.decoder = None
        else:
            self.decoder = Dense(config.hidden_size, config.vocab_size, config, generator)
            self.register_buffer("bias", nn.init.zeros((config.vocab_size,)).data)  # in files, but used by nobody

    def forward(self, x, word_embeddings):
        x = self.transform(x)
        return ops.linear(x, word_embeddings, self.bias) if self.decoder is None else self.decoder(x)


class PreTrainingHeads(nn.Module):
    """The heads of pretraining: which word was there, and whether the second text follows the first."""

    def __init__(self, config: BertConfig, generator: Generator | None, next_sentence: bool):
        self.predictions = Predictions(config, generator)
        self.seq_relationship = Dense(config.hidden_size, 2, config, generator) if next_sentence else None


class BertForMaskedLM(BertPreTrainedModel):
    """BERT with the head that says which word stands at each place, tied to the word embeddings.

    >>> import numpy as np
    >>> model = BertForMaskedLM(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> ids = np.array([[1, 2, 3]])
    >>> out = model.eval()(ids, labels=np.array([[-100, 2, -100]]))
    >>> out.logits.shape, out.loss.shape
    ((1, 3, 50), ())
    """

    architecture = "BertForMaskedLM"

    def __init__(self, config: BertConfig, generator: Generator | None = None):
        self.config = config
        self.bert = Bert(config, generator, add_pooling_layer=False)
        self.cls = PreTrainingHeads(config, generator, next_sentence=False)

    def forward(
        self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, labels=None, **on_request
    ) -> HeadOutput:
        """Logits (B, T, V); the mean loss if `labels` (B, T) are given, tokens or -100 where nothing is asked."""
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **on_request)
        x = out.last_hidden_state
        logits = self.cls.predictions(x, self.bert.embeddings.word_embeddings.weight)
        loss = None if labels is None else ops.cross_entropy(logits, self._raw(labels, "labels", (x.shape[:2],)))
        return HeadOutput(logits, loss, out.hidden_states, out.attentions)


class BertForPreTraining(BertPreTrainedModel):
    """BERT as it is pretrained: masked words, and whether the second of two texts follows the first.

    >>> import numpy as np
    >>> config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=8)
    >>> out = BertForPreTraining(config)(np.array([[1, 2, 3], [4, 5, 6]]))
    >>> out.prediction_logits.shape, out.seq_relationship_logits.shape
    ((2, 3, 50), (2, 2))
    """

    architecture = "BertForPreTraining"

    def __init__(self, config: BertConfig, generator: Generator | None = None):
        self.config = config
        self.bert = Bert(config, generator)
        self.cls = PreTrainingHeads(config, generator, next_sentence=True)

    def forward(
        self,
        input_ids,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        labels=None,
        next_sentence_label=None,
        **on_request,
    ) -> PreTrainingOutput:
        """`prediction_logits` (B, T, V) and `seq_relationship_logits` (B, 2).

        Given `labels` (B, T), tokens or -100, and `next_sentence_label` (B,), 0 where the second text follows the first
        and 1 where it does not, the sum of both mean losses. ValueError for one without the other.
        """
        _together("labels", labels, "next_sentence_label", next_sentence_label)
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **on_request)
        x, loss = out.last_hidden_state, None
        words = self.cls.predictions(x, self.bert.embeddings.word_embeddings.weight)
        follows = self.cls.seq_relationship(out.pooler_output)
        if labels is not None:
            batch = x.shape[0]
            next_label = self._raw(next_sentence_label, "next_sentence_label", ((batch,), (batch, 1)))
            loss = ops.cross_entropy(words, self._raw(labels, "labels", (x.shape[:2],)))
            loss = loss + ops.cross_entropy(follows, next_label.reshape(-1))
        return PreTrainingOutput(words, follows, loss, out.hidden_states, out.attentions)


class BertForSequenceClassification(BertPreTrainedModel):
    """BERT with a head that classifies a whole text, or gives it a number: `config.num_labels` logits.

    >>> import numpy as np
    >>> config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=8, num_labels=3)
    >>> out = BertForSequenceClassification(config)(np.array([[1, 2, 3], [4, 5, 6]]), labels=np.array([0, 2]))
    >>> out.logits.shape, out.loss.shape
    ((2, 3), ())
    """

    architecture = "BertForSequenceClassification"

    def __init__(self, config: BertConfig, generator: Generator | None = None):
        self.config = config
        self.bert = Bert(config, generator)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = Dense(config.hidden_size, config.num_labels, config, generator)

    def forward(
        self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, labels=None, **on_request
    ) -> HeadOutput:
        """Logits (B, num_labels), and the mean loss if `labels` are given.

        By `config.problem_type`: "regression" is the squared error to numbers (B, num_labels), or (B,) for one label;
        "single_label_classification" the cross-entropy of classes (B,); "multi_label_classification" the binary
        cross-entropy of 0 and 1 (B, num_labels). None: one label is a regression, integers are classes, other numbers
        are 0 and 1 for each of several labels.
        """
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **on_request)
        logits = self.classifier(self.dropout(out.pooler_output))
        return HeadOutput(logits, self._loss(logits, labels), out.hidden_states, out.attentions)

    def _loss(self, logits, labels):
        if labels is None:
            return None
        batch, n = logits.shape
        one_each, all_labels = ((batch,), (batch, 1)), ((batch, n),)
        labels = self._raw(labels, "labels", (*one_each, *all_labels))
        kind = self.config.problem_type
        if kind is None and n == 1:
            kind = "regression"
        elif kind is None:
            kind = "single_label_classification" if labels.dtype.kind in "iu" else "multi_label_classification"
        if kind == "single_label_classification":
            return ops.cross_entropy(logits, self._raw(labels, "labels", one_each).reshape(-1))
        labels = self._raw(labels, "labels", one_each if n == 1 else all_labels).reshape(batch, n).astype(logits.dtype)
        if kind == "regression":
            return ops.mean(ops.square(logits - labels))
        return ops.mean(ops.softplus(logits) - logits * labels)  # -log sigmoid(logit), or of its negative for 0


class BertForTokenClassification(BertPreTrainedModel):
    """BERT with a head that classifies each token: `config.num_labels` logits each.

    >>> import numpy as np
    >>> config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=8, num_labels=3)
    >>> BertForTokenClassification(config)(np.array([[1, 2, 3], [4, 5, 6]])).logits.shape
    (2, 3, 3)
    """

    architecture = "BertForTokenClassification"

    def __init__(self, config: BertConfig, generator: Generator | None = None):
        self.config = config
        self.bert = Bert(config, generator, add_pooling_layer=False)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = Dense(config.hidden_size, config.num_labels, config, generator)

    def forward(
        self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, labels=None, **on_request
    ) -> HeadOutput:
        """Logits (B, T, num_labels); the mean loss if `labels` (B, T) are given, classes or -100 to leave one out."""
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **on_request)
        x = out.last_hidden_state
        logits = self.classifier(self.dropout(x))
        loss = None if labels is None else ops.cross_entropy(logits, self._raw(labels, "labels", (x.shape[:2],)))
        return HeadOutput(logits, loss, out.hidden_states, out.attentions)


class BertForQuestionAnswering(BertPreTrainedModel):
    """BERT with a head that finds where in a text an answer starts and ends.

    >>> import numpy as np
    >>> config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=8)
    >>> out = BertForQuestionAnswering(config)(np.array([[1, 2, 3], [4, 5, 6]]))
    >>> out.start_logits.shape, out.end_logits.shape
    ((2, 3), (2, 3))
    """

    architecture = "BertForQuestionAnswering"

    def __init__(self, config: BertConfig, generator: Generator | None = None):
        self.config = config
        if config.num_labels != 2:
            raise ValueError(
                f"the two labels of question answering are start and end; num_labels is {config.num_labels}"
            )
        self.bert = Bert(config, generator, add_pooling_layer=False)
        self.qa_outputs = Dense(config.hidden_size, 2, config, generator)

    def forward(
        self,
        input_ids,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        start_positions=None,
        end_positions=None,
        **on_request,
    ) -> QuestionAnsweringOutput:
        """`start_logits` and `end_logits` (B, T).

        Given `start_positions` and `end_positions` (B,), the mean of both losses; positions at and after T, of answers
        that were cut off, do not count. ValueError for one without the other.
        """
        _together("start_positions", start_positions, "end_positions", end_positions)
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **on_request)
        logits, loss = self.qa_outputs(out.last_hidden_state), None
        start, end = logits[..., 0], logits[..., 1]
        if start_positions is not None:
            loss = (self._loss(start, start_positions) + self._loss(end, end_positions)) / 2
        return QuestionAnsweringOutput(start, end, loss, out.hidden_states, out.attentions)

    def _loss(self, logits, positions):
        batch, length = logits.shape
        positions = self._raw(positions, "positions", ((batch,), (batch, 1))).reshape(-1)
        return ops.cross_entropy(logits, positions.clip(0, length), ignore_index=length)


def _classifier_dropout(config: BertConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _together(name: str, value, other: str, other_value) -> None:
    if (value is None) != (other_value is None):
        given, missing = (name, other) if other_value is None else (other, name)
        raise ValueError(f"{given} came without {missing}; the loss is of both, give both or neither")
