"""A family of models as the checks see it: rows of tokens go in, numbers about them and a loss come out."""

from __future__ import annotations

import numpy as np

from minilm import backend, ops
from minilm.autograd import no_grad

__all__ = ["CausalSubject", "EncoderDecoderSubject", "EncoderSubject", "subject_of"]


def subject_of(model) -> Subject:
    """The subject that fits the model: it writes on, it writes about another text, or it only reads."""
    if hasattr(model, "encode"):
        return EncoderDecoderSubject(model)
    return CausalSubject(model) if hasattr(model, "new_cache") else EncoderSubject(model)


class Subject:
    """A model, or a twin of it in another precision, and what it is asked.

    `call(ids, model, **given)` is its output for rows (B, T), `said(output)` the numbers in it (B, ...) by which it is
    judged, `loss(ids, model)` a number to differentiate, the mean over rows of equal weight.
    """

    writes = True  # whether it says at each place what comes next, from what stands before it
    sees_left_padding = True  # whether padding may stand on the left

    def __init__(self, model) -> None:
        self.model = model

    @property
    def max_length(self) -> int:
        """The longest row, a number to choose test rows by."""
        return self.model.max_length

    def call(self, ids, model=None, **given):
        return (model or self.model)(ids, **given)

    def said(self, out):
        return out.logits

    def numbers(self, ids, model=None, **given) -> np.ndarray:
        """What the model says, in float64."""
        with no_grad():
            return backend.to_numpy(self.said(self.call(ids, model, **given)).data).astype(np.float64)

    def loss(self, ids, model=None):
        return self.call(ids[:, :-1], model, targets=ids[:, 1:]).loss


class CausalSubject(Subject):
    """A decoder-only model."""

    def stepwise(self, pieces: list[np.ndarray]) -> np.ndarray:
        """What it says about rows that come piece by piece through the cache."""
        cache = self.model.new_cache()
        return np.concatenate([self.numbers(piece, cache=cache) for piece in pieces], axis=1)

    def text(self, ids, new: int, **options) -> np.ndarray:
        return self.model.generate(ids, new, eos_token_id=[], **options)


class EncoderDecoderSubject(Subject):
    """A model that reads one text and writes another: the rows are what it writes, and each has a text to read.

    That is made from the row's first token, so that it stays the same when later tokens change.
    """

    sees_left_padding = False

    @property
    def max_length(self) -> int:
        return getattr(self.model, "max_length", 64)

    def source(self, ids) -> np.ndarray:
        return (ids[:, :1] * 31 + np.arange(max(ids.shape[1] - 1, 2)) * 17 + 3) % self.model.config.vocab_size

    def call(self, ids, model=None, source=None, **given):
        source = self.source(ids) if source is None else source
        return (model or self.model)(source, decoder_input_ids=ids, **given)

    def loss(self, ids, model=None):
        # A batch's rows read texts of their own: made before the last token is cut off, and the same for any batch.
        return self.call(ids[:, :-1], model, source=self.source(ids), targets=ids[:, 1:]).loss

    def stepwise(self, pieces: list[np.ndarray]) -> np.ndarray:
        whole, found = np.concatenate(pieces, axis=1), []
        with no_grad():
            cache, encoded = self.model.new_cache(), self.model.encode(self.source(whole))
            for piece in pieces:
                given = {} if found else {"encoder_outputs": encoded}
                found.append(backend.to_numpy(self.model(decoder_input_ids=piece, cache=cache, **given).logits.data))
        return np.concatenate(found, axis=1).astype(np.float64)

    def text(self, ids, new: int, **options) -> np.ndarray:
        start = getattr(self.model.config, "decoder_start_token_id", None)
        options["decoder_start_token_id"] = 0 if start is None else start
        return self.model.generate(self.source(ids), new, eos_token_id=[], **options)


class EncoderSubject(Subject):
    """A model that reads: all outputs of its heads are looked at, and each takes part in the loss."""

    writes = sees_left_padding = False
    _OUTPUTS = (
        "logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits", "last_hidden_state",
        "pooler_output",
    )  # fmt: skip

    @property
    def max_length(self) -> int:
        return self.model.config.max_position_embeddings

    def _outputs(self, out) -> list:
        return [x for name in self._OUTPUTS if (x := getattr(out, name, None)) is not None]

    def said(self, out):
        """(B, T, ...) for a model of tokens, (B, ...) for one of texts; of several heads, the first's."""
        return self._outputs(out)[0]

    def loss(self, ids, model=None):
        """The cross-entropy of classes that the tokens name, for each output: not what such a model is trained with."""
        total = 0.0
        for x in self._outputs(self.call(ids, model)):
            rows = x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))
            tokens = ids if len(rows) == ids.size else ids[:, 0]
            total = total + ops.cross_entropy(rows, tokens.reshape(-1) % rows.shape[-1])
        return total
