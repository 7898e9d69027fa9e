"""Which token of a published tokenizer ends a document: the file itself does not say."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["END_OF_TEXT", "end_tokens", "find_eos"]

END_OF_TEXT = "<|endoftext|>"
# What published models call it, the likeliest first.
_USUAL_NAMES = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<|im_end|>", "<eos>", "[EOS]")


def find_eos(library, folder: Path) -> str | None:
    """What a tokenizer_config.json in the folder names, else the first usual name, else the only special token."""
    named = _configured(folder / "tokenizer_config.json")
    if named is not None:
        return named
    for name in _USUAL_NAMES:
        if library.token_to_id(name) is not None:
            return name
    special = [token.content for token in library.get_added_tokens_decoder().values() if token.special]
    return special[0] if len(special) == 1 else None


def end_tokens(config, tokenizer) -> list[int]:
    """The ids at which a text ends: those of a model's config, and the tokenizer's own where that is another.

    >>> from minilm.models import GPT2Config
    >>> from minilm.tokenization import Tokenizer
    >>> end_tokens(GPT2Config(eos_token_id=[3, 5]), Tokenizer.byte(["<|end|>"]))
    [3, 5, 256]
    """
    given = getattr(config, "eos_token_id", None)
    ends = {given} if isinstance(given, int) else set(given or ())
    return sorted(ends | ({tokenizer.eos_token_id} - {None}))


def _configured(path: Path) -> str | None:
    try:
        eos = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # no such file, or none of transformers'
    return eos.get("content") if isinstance(eos, dict) else eos
