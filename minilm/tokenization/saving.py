"""A tokenizer as files that transformers reads: tokenizer.json, and what it is told besides its vocabulary."""

from __future__ import annotations

import json
import os
from pathlib import Path

from minilm.files import atomic_write

__all__ = ["save_folder"]


def save_folder(tokenizer, folder: str | os.PathLike) -> None:
    """Writes tokenizer.json (for Marian its own files), and the rest as tokenizer_config.json: tokens, templates."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    templates = tokenizer.chat_templates
    chat = {}
    if set(templates) == {"default"}:
        chat = {"chat_template": templates["default"]}
    elif templates:
        chat = {"chat_template": [{"name": name, "template": text} for name, text in templates.items()]}
    inputs = ["input_ids", *(["token_type_ids"] if tokenizer.uses_token_type_ids else []), "attention_mask"]
    limit = {} if tokenizer.max_length is None else {"model_max_length": tokenizer.max_length}
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": bool(tokenizer.clean_up_tokenization_spaces),
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_input_names": inputs,
        **limit,
        **tokenizer.special_tokens,
        **chat,
    }
    if hasattr(tokenizer.library, "save_files"):  # Marian's are no tokenizer.json
        tokenizer.library.save_files(folder)
        values["tokenizer_class"] = "MarianTokenizer"
        values["separate_vocabs"] = tokenizer.library.reader is not tokenizer.library
    else:
        tokenizer.save(folder)
    atomic_write(folder / "tokenizer_config.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")
