"""`load`: the model that a folder holds, whatever its family."""

from __future__ import annotations

import os
from pathlib import Path

from .bert import Bert
from .bert_heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from .gpt2 import GPT2
from .llama import Llama, Mistral, Qwen2
from .pretrained import PretrainedModel, read_config

__all__ = ["load"]

_CLASSES = (
    GPT2, Llama, Mistral, Qwen2,
    Bert, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertForTokenClassification,
    BertForQuestionAnswering,
)  # fmt: skip
_BY_ARCHITECTURE = {model.architecture: model for model in _CLASSES}
# For a config that names no architecture: a family's language model or, where there is none, its plain form.
_BY_TYPE: dict[str, type[PretrainedModel]] = {model.config_class.model_type: model for model in reversed(_CLASSES)}


def load(path: str | os.PathLike) -> PretrainedModel:
    """The model in a folder in Hugging Face form or a run's folder, in eval mode and float32.

    The class is the one that config.json names in `architectures`, or the usual one of its `model_type`. ValueError for
    a family that is not here, and whatever `from_pretrained` of the class raises.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no folder {path}")
    config = read_config(path)
    names = [name for name in config.get("architectures") or () if isinstance(name, str)]
    for name in names:
        if name in _BY_ARCHITECTURE:
            return _BY_ARCHITECTURE[name].from_pretrained(path)
    kind = config.get("model_type")
    if not names and kind in _BY_TYPE:
        return _BY_TYPE[kind].from_pretrained(path)
    raise ValueError(
        f"{path} holds a {' or '.join(names) or kind or 'model of no known kind'}; "
        f"there are: {', '.join(sorted(_BY_ARCHITECTURE))}"
    )
