"""`load`: the model that a folder holds, whatever its family."""

from __future__ import annotations

import os
from pathlib import Path

from .bart import BartForConditionalGeneration
from .bert import Bert
from .bert_heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from .gguf import load_gguf
from .gpt2 import GPT2
from .llama import Llama, Mistral, Qwen2
from .marian import MarianMTModel
from .pretrained import PretrainedModel, read_config
from .recurrent import RecurrentLM, RecurrentSeq2Seq
from .t5 import T5ForConditionalGeneration

__all__ = ["load"]

_CLASSES = (
    GPT2, Llama, Mistral, Qwen2,
    Bert, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertForTokenClassification,
    BertForQuestionAnswering,
    BartForConditionalGeneration, MarianMTModel, T5ForConditionalGeneration,
    RecurrentLM, RecurrentSeq2Seq,
)  # fmt: skip
_BY_ARCHITECTURE = {model.architecture: model for model in _CLASSES}
# For a config that names no architecture: a family's language model or, where there is none, its plain form.
_BY_TYPE: dict[str, type[PretrainedModel]] = {model.config_class.model_type: model for model in reversed(_CLASSES)}


def load(path: str | os.PathLike, weights: str | None = None) -> PretrainedModel:
    """The model in a folder in Hugging Face form, a run's folder, or a GGUF file, in eval mode.

    The class is the one that config.json names in `architectures`, or the usual one of its `model_type`. Weights become
    float32; what a GGUF file holds in blocks stays so with `weights` "keep", which is the default for it, and becomes
    float32 with "fp32". ValueError for a family that is not here, and whatever `from_pretrained` of the class raises.

    >>> import tempfile
    >>> from minilm.models import GPT2Config
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)).save_pretrained(folder)
    ...     type(load(folder)).__name__
    'GPT2'
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if weights not in (None, "keep", "fp32"):
        raise ValueError(f"weights is 'keep' (quantised ones stay so) or 'fp32', not {weights!r}")
    if path.is_file() and path.suffix == ".gguf":
        return load_gguf(path, weights or "keep")
    if path.is_file():
        raise ValueError(f"{path} is no model: expected a folder with config.json, or a file that ends in .gguf")
    config = read_config(path)
    given = config.get("architectures")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    for name in names:
        if name in _BY_ARCHITECTURE:
            return _BY_ARCHITECTURE[name].from_pretrained(path)
    kind = config.get("model_type")
    kind = kind if isinstance(kind, str) else None
    if not names and kind in _BY_TYPE:
        return _BY_TYPE[kind].from_pretrained(path)
    raise ValueError(
        f"{path} holds a {' or '.join(names) or kind or 'model of no known kind'}; "
        f"there are: {', '.join(sorted(_BY_ARCHITECTURE))}; a model of your own is loaded by its class: "
        "CLASS.from_pretrained(folder)"
    )
