"""Language models and translators by LSTM or GRU: what the field used before the Transformer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from minilm import nn, ops
from minilm.autograd import Tensor, no_grad
from minilm.backend import Generator, to_device

from .causal_lm import CausalLM
from .output import CausalLMOutput
from .pretrained import Config, PretrainedModel

__all__ = ["RecurrentConfig", "RecurrentLM", "RecurrentSeq2Seq"]


@dataclass
class RecurrentConfig(Config):
    """The shape of a recurrent model; `cell` is "lstm" or "gru". Raises ValueError for sizes that do not fit.

    >>> RecurrentConfig(vocab_size=50, hidden_size=16, num_layers=1, cell="gru").layers(None)
    GRU(...)
    """

    vocab_size: int = 256
    hidden_size: int = 512
    num_layers: int = 2
    cell: str = "lstm"
    dropout: float = 0.0
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    model_type = "minilm_recurrent"

    def __post_init__(self) -> None:
        if self.cell not in ("lstm", "gru"):
            raise ValueError(f"cell is 'lstm' or 'gru', not {self.cell!r}")
        self._check_counts("vocab_size", "hidden_size", "num_layers")

    def layers(self, generator: Generator | None, bidirectional: bool = False) -> nn.LSTM | nn.GRU:
        """The recurrent layers, `hidden_size` wide in all."""
        kind, width = {"lstm": nn.LSTM, "gru": nn.GRU}[self.cell], self.hidden_size
        if bidirectional and width % 2:
            raise ValueError(f"hidden_size must be even, for half of it reads backwards; got {width}")
        inner = width // 2 if bidirectional else width
        return kind(width, inner, self.num_layers, True, self.dropout, bidirectional, generator)


class RecurrentState:
    """What a recurrent model keeps of the tokens so far: their number, and a state of fixed size."""

    def __init__(self) -> None:
        self.state, self.length = None, 0

    def __len__(self) -> int:
        """How many tokens it has seen."""
        return self.length

    def select(self, rows) -> None:
        """Keeps the batch rows given, in that order (repeats allowed)."""
        if isinstance(self.state, tuple):
            self.state = tuple(Tensor(part.data[:, rows]) for part in self.state)
        elif self.state is not None:
            self.state = Tensor(self.state.data[:, rows])


class RecurrentLM(CausalLM):
    """Embedding, LSTM or GRU layers, and an output layer that shares the embedding's table unless told otherwise.

    >>> import numpy as np
    >>> model = RecurrentLM(RecurrentConfig(vocab_size=50, hidden_size=8, num_layers=1, cell="gru"))
    >>> ids = np.array([[1, 2, 3, 4]])
    >>> model(ids[:, :-1], targets=ids[:, 1:]).logits.shape
    (1, 3, 50)
    """

    config_class = RecurrentConfig
    architecture = "MinilmRecurrentLM"

    def __init__(self, config: RecurrentConfig, generator: Generator | None = None):
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, 0.02, generator)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = config.layers(generator)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, True, generator)

    def forward(
        self,
        input_ids,
        targets=None,
        attention_mask=None,
        cache: RecurrentState | None = None,
        logits_to_keep: int = 0,
        *,
        labels=None,
    ) -> CausalLMOutput:
        """Logits (B, T, V) for integer `input_ids` (B, T), and the mean loss if `targets` or `labels` are given.

        As GPT2's forward; there are no positions. `attention_mask` (B, S) is 1 for tokens and 0 for padding, over the
        tokens that `cache` has seen too: padding leaves the state as it is.
        """
        ids, past = self._integers(input_ids), 0 if cache is None else len(cache)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"input_ids must be (B, T), at least one token; got shape {ids.shape}. One row: ids[None]")
        if attention_mask is not None:
            attention_mask = self._integers(attention_mask)
            if attention_mask.shape != (len(ids), past + ids.shape[1]):
                raise ValueError(
                    f"attention_mask must be ({len(ids)}, {past + ids.shape[1]}), one entry a token; got "
                    f"{attention_mask.shape}"
                )
            attention_mask = attention_mask[:, past:]
        x = self.dropout(self.embed_tokens(ids))
        x, state = self.layers(x, None if cache is None else cache.state, attention_mask)
        if cache is not None:
            cache.state, cache.length = state, past + ids.shape[1]
        head = self.embed_tokens.project if self.config.tie_word_embeddings else self.lm_head
        return self._output(self.dropout(x), head, targets, labels, logits_to_keep, None, None)

    @property
    def max_length(self) -> int:
        """The most tokens that the model can look at: as many as there are."""
        return sys.maxsize

    def new_cache(self, capacity: int = 0, implementation: str = "dynamic", rows: int = 1) -> RecurrentState:
        """The state before the first token; it takes as much room however many come."""
        if implementation != "dynamic":
            raise ValueError(f'the state of a recurrent model is "dynamic", it holds no keys; got {implementation!r}')
        return RecurrentState()


class RecurrentSeq2Seq(PretrainedModel):
    """An encoder that reads both ways, and a decoder that looks back at it by attention (Luong et al. 2015).

    score(h_t, e_s) = h_t W e_s;  c_t = sum over s of softmax(score) e_s;  the output is tanh(V [c_t; h_t])
    (arXiv:1508.04025, "general" scores). Source and target share one vocabulary.

    >>> config = RecurrentConfig(vocab_size=50, hidden_size=16, num_layers=1)
    >>> model = RecurrentSeq2Seq(config)
    >>> model(np.array([[3, 4, 5]]), np.array([[1, 6]])).logits.shape
    (1, 2, 50)
    >>> model.translate(np.array([[3, 4, 5]]), max_new_tokens=4, start_token=1).shape
    (1, 4)
    """

    config_class = RecurrentConfig
    architecture = "MinilmRecurrentSeq2Seq"

    def __init__(self, config: RecurrentConfig, generator: Generator | None = None):
        self.config = config
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width, 0.02, generator)
        self.encoder = config.layers(generator, bidirectional=True)
        self.decoder = config.layers(generator)
        self.score = nn.Linear(width, width, False, generator)
        self.combine = nn.Linear(2 * width, width, True, generator)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(width, config.vocab_size, True, generator)

    def forward(self, input_ids, decoder_input_ids, attention_mask=None, targets=None) -> CausalLMOutput:
        """Logits (B, T, V) of the tokens after `decoder_input_ids` (B, T), given the source `input_ids` (B, S).

        `attention_mask` (B, S) is 1 for the source's tokens and 0 for padding; `targets` (B, T) are aligned with the
        logits, -100 is ignored. `attentions` of the result holds the weights (B, T, S).
        """
        memory, mask = self.encode(input_ids, attention_mask)
        logits, weights, _ = self.decode(decoder_input_ids, memory, mask)
        loss = None if targets is None else ops.cross_entropy(logits, self._integers(targets))
        return CausalLMOutput(logits, loss, attentions=(weights,))

    def encode(self, input_ids, attention_mask=None):
        """What the decoder looks at: the encoder's outputs (B, S, C), and which (B, 1, S) are tokens', None if all."""
        memory, _ = self.encoder(self.embed_tokens(self._integers(input_ids)), None, attention_mask)
        if attention_mask is None:
            return memory, None
        return memory, to_device(self._integers(attention_mask).astype(bool)[:, None], self.device)

    def decode(self, ids, memory, mask, state=None):
        """(logits (B, T, V), weights (B, T, S), state) for target tokens `ids` (B, T) that come after `state`."""
        hidden, state = self.decoder(self.embed_tokens(self._integers(ids)), state)
        weights = ops.softmax(ops.matmul(self.score(hidden), memory.swapaxes(1, 2)), mask=mask)
        mixed = ops.concatenate([ops.matmul(weights, memory), hidden], axis=2)
        head = self.embed_tokens.project if self.config.tie_word_embeddings else self.lm_head
        return head(ops.tanh(self.combine(mixed))), weights, state

    def translate(self, input_ids, max_new_tokens: int, start_token: int, attention_mask=None) -> np.ndarray:
        """The likeliest tokens, one after the other: int64 (B, up to max_new_tokens); a row that has ended repeats its
        end, one of the config's `eos_token_id`."""
        given = self.config.eos_token_id
        ends = [] if given is None else [given] if isinstance(given, int) else list(given)
        with nn.eval_mode(self), no_grad():
            memory, mask = self.encode(input_ids, attention_mask)
            token, state, tokens = np.full(memory.shape[0], start_token), None, []
            for _ in range(max_new_tokens):
                logits, _, state = self.decode(token[:, None], memory, mask, state)
                ended = np.isin(token, ends) & bool(tokens)
                token = np.where(ended, token, logits.numpy()[:, -1].argmax(-1))
                tokens.append(token)
                if np.isin(token, ends).all():
                    break
        return np.stack(tokens, axis=1) if tokens else np.empty((memory.shape[0], 0), np.int64)
