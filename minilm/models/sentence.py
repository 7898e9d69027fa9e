"""Sentence embeddings: a vector for a text, near those of texts that mean the same (Reimers and Gurevych 2019).

https://arxiv.org/abs/1908.10084. Folders are those of the sentence-transformers library, or of a plain encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from minilm import nn, ops
from minilm.autograd import Tensor, no_grad
from minilm.backend import array_module, to_numpy
from minilm.tokenization import Tokenizer

from .bert import Bert
from .pretrained import PretrainedModel, read_config

__all__ = ["SentenceEmbedder", "is_encoder", "mean_pooling"]

POOLING = ("mean", "cls")  # the mean over all tokens, or what the first says
_ENCODERS: dict[str, type[PretrainedModel]] = {"bert": Bert}


def mean_pooling(hidden_states, attention_mask=None, cu_seqlens=None):
    """The mean of each text's hidden states: (B, C) of (B, T, C).

    `attention_mask` (B, T) of 1 and 0 says which tokens count (a row without any gives zeros); `cu_seqlens` (n + 1,)
    where the n texts lie in a single row, as `Bert` takes it: (n, C) of (1, T, C).

    >>> import numpy as np
    >>> mean_pooling(np.arange(6.0).reshape(1, 3, 2), attention_mask=np.array([[1, 1, 0]]))
    array([[1., 2.]])
    """
    if attention_mask is None and cu_seqlens is None:
        return ops.mean(hidden_states, axis=1)
    if attention_mask is not None and cu_seqlens is not None:
        raise ValueError("texts in one row, by cu_seqlens, have no padding for an attention_mask to hide; give one")
    xp = array_module(getattr(hidden_states, "_data", hidden_states))
    if cu_seqlens is not None:
        starts = xp.asarray(cu_seqlens)[:, None]
        places = xp.arange(hidden_states.shape[1])
        mask = ((places >= starts[:-1]) & (places < starts[1:])).astype(hidden_states.dtype)  # (n, T)
        return ops.matmul(mask / mask.sum(axis=1, keepdims=True), hidden_states[0])
    mask = attention_mask._data if isinstance(attention_mask, Tensor) else attention_mask
    mask = xp.asarray(mask, hidden_states.dtype)
    if mask.shape != tuple(hidden_states.shape[:2]):
        raise ValueError(f"attention_mask must be (B, T) = {tuple(hidden_states.shape[:2])}; got {mask.shape}")
    weights = mask / xp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return ops.matmul(weights[:, None], hidden_states)[:, 0]


class SentenceEmbedder:
    """An encoder, its tokenizer, and how hidden states become one vector: `embedder(texts)` is an array (N, C).

    `pooling` is "mean" or "cls"; with `normalize` each vector has length 1, so that a dot product is a cosine. Of a
    text longer than `max_length` tokens only its beginning is seen, as everywhere in the field.

    >>> from minilm.models import BertConfig
    >>> config = BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=32, max_position_embeddings=16)
    >>> embedder = SentenceEmbedder(Bert(config), Tokenizer.byte(["[PAD]"]))
    >>> embedder(["a text", "another"]).shape
    (2, 16)
    """

    def __init__(
        self,
        model: PretrainedModel,
        tokenizer: Tokenizer,
        pooling: str = "mean",
        normalize: bool = True,
        max_length: int | None = None,
    ):
        if pooling not in POOLING:
            raise ValueError(f"pooling is one of {', '.join(POOLING)}; got {pooling!r}")
        most = model.config.max_position_embeddings
        max_length = most if max_length is None else max_length
        if not 1 <= max_length <= most:
            raise ValueError(f"max_length is 1 to {most}, the positions that the model has; got {max_length}")
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; take both from "
                "one folder"
            )
        self.model, self.tokenizer = model, tokenizer
        self.pooling, self.normalize, self.max_length = pooling, normalize, max_length

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
    ) -> Self:
        """The embedder that a folder holds; None is what its files say, else mean, normalised, all positions.

        Raises what `Bert.from_pretrained` does, and ValueError for models and modules that are not supported.
        """
        folder = Path(folder)
        place, told = _modules(folder)
        kind = read_config(place).get("model_type")
        if kind not in _ENCODERS:
            raise ValueError(
                f"{place} holds a model of type {kind!r}; sentences are embedded by: {', '.join(_ENCODERS)}"
            )
        model = _ENCODERS[kind].from_pretrained(place, add_pooling_layer=False)
        given = {"pooling": pooling, "normalize": normalize, "max_length": max_length}
        tokenizer = Tokenizer.from_pretrained(place)
        if tokenizer.max_length is not None:
            told.setdefault("max_length", min(tokenizer.max_length, model.config.max_position_embeddings))
        settings = told | {name: value for name, value in given.items() if value is not None}
        return cls(model, tokenizer, **settings)

    def __call__(self, texts: Sequence[str], batch_tokens: int = 2048) -> np.ndarray:
        """The vectors (N, C) of the texts. About `batch_tokens` tokens are computed at a time, none of them padding."""
        if isinstance(texts, str):
            raise TypeError("expected a sequence of texts, got one str; for one text: embedder([text])[0]")
        return self.vectors(self._encode(texts), batch_tokens)

    def vectors(self, ids: Sequence[np.ndarray], batch_tokens: int = 2048) -> np.ndarray:
        """The vectors (N, C) of texts given as token ids, those around a text included: 1 to `max_length` of each."""
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is at least 1; got {batch_tokens}")
        places = np.cumsum([0, *(len(row) for row in ids)])
        result, start = np.empty((len(ids), self.model.config.hidden_size), next(self.model.parameters()).dtype), 0
        while start < len(ids):
            stop = max(start + 1, int(np.searchsorted(places, places[start] + batch_tokens, "right")) - 1)
            result[start:stop] = to_numpy(self.embed(ids[start:stop]).data)
            start = stop
        return result

    def embed(self, ids: Sequence[np.ndarray]) -> Tensor:
        """The vectors (B, C) of one batch, given the token ids of each text."""
        starts = np.cumsum([0, *(len(row) for row in ids)])
        with no_grad(), nn.eval_mode(self.model):
            hidden = self.model(np.concatenate(ids)[None], cu_seqlens=starts).last_hidden_state
            x = mean_pooling(hidden, cu_seqlens=starts) if self.pooling == "mean" else hidden[0, starts[:-1]]
            if self.normalize:
                x = x / ops.maximum(ops.sqrt(ops.sum(x * x, axis=1, keepdims=True)), 1e-12)
        return x

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        ids = self.tokenizer.encode_batch(texts, add_special_tokens=True)
        for i, row in enumerate(ids):
            if not len(row):
                raise ValueError(f"text {i} is empty and the tokenizer puts nothing around a text; leave it out")
            if len(row) > self.max_length:
                ids[i] = self.tokenizer([texts[i]], truncation=True, max_length=self.max_length)["input_ids"][0]
        return ids


def is_encoder(folder: str | os.PathLike) -> bool:
    """Whether a folder is one of the sentence-transformers library, or holds an encoder that can embed sentences."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return (folder / "modules.json").is_file()
    return read_config(folder).get("model_type") in _ENCODERS


def _modules(folder: Path) -> tuple[Path, dict]:
    """Where the encoder is, and the settings that the files of sentence-transformers give."""
    settings: dict = {}
    place = folder
    if (folder / "modules.json").is_file():
        settings["normalize"] = False
        for module in _read_json(folder / "modules.json", list):
            kind = str(module.get("type")).rpartition(".")[2]
            if kind == "Transformer":
                place = folder / module.get("path", "")
            elif kind == "Pooling":
                settings["pooling"] = _pooling(folder / module.get("path", "") / "config.json")
            elif kind == "Normalize":
                settings["normalize"] = True
            else:
                raise ValueError(f"{folder / 'modules.json'} has a module {kind!r}, which is not supported")
    if (place / "sentence_bert_config.json").is_file():
        config = _read_json(place / "sentence_bert_config.json", dict)
        if config.get("max_seq_length") is not None:
            settings["max_length"] = config["max_seq_length"]
        if config.get("do_lower_case"):
            raise ValueError(f"{place / 'sentence_bert_config.json'} has do_lower_case, which is not supported")
    if (folder / "config_sentence_transformers.json").is_file():
        config = _read_json(folder / "config_sentence_transformers.json", dict)
        if config.get("default_prompt_name"):
            raise ValueError(f"{folder} puts a prompt before each text (default_prompt_name), which is not supported")
    return place, settings


def _pooling(path: Path) -> str:
    config = _read_json(path, dict)
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = config.get("pooling_mode") or (known.get(modes[0]) if len(modes) == 1 else None)
    if chosen not in POOLING:
        raise ValueError(f"{path} asks for {config.get('pooling_mode') or modes}; there are: {', '.join(POOLING)}")
    return chosen


def _read_json(path: Path, kind: type):
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which the folder's modules.json speaks of")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no intact JSON: {error}") from None
    if not isinstance(values, kind) or (kind is list and not all(isinstance(value, dict) for value in values)):
        raise ValueError(f"{path} holds no JSON {'list of objects' if kind is list else 'object'}")
    return values
