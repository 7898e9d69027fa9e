"""What a tokenizer's own JSON tells about it: which tokenizers are the same, its bytes, its characters."""

from __future__ import annotations

import hashlib
import json

from minilm.tokenization.byte_level import token_to_bytes

__all__ = ["check_characters", "clean_up", "digest", "known_characters", "token_bytes"]

_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
_CLEAN_UP += ((" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


def digest(specification: dict) -> str:
    """SHA-256, in hex, of all that decides which ids a text gets."""
    model = specification["model"]
    merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges", ())]
    decisive = {name: specification[name] for name in ("added_tokens", "normalizer", "pre_tokenizer")}
    decisive["model"] = {**model, "merges": merges}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode("utf-8")).hexdigest()


def token_bytes(specification: dict, tokens: list[str | None]) -> list[bytes] | None:
    """The bytes of each token, where decoding is joining them (byte-level and character tokenizers); else None."""
    decoder = (specification["decoder"] or {}).get("type")
    to_bytes = {"ByteLevel": token_to_bytes, "Fuse": lambda token: token.encode("utf-8")}.get(decoder)
    return None if to_bytes is None else [to_bytes(token or "") for token in tokens]


def known_characters(specification: dict) -> frozenset[str] | None:
    """What a character tokenizer knows (the library drops any other character in silence); None for other kinds."""
    model = specification["model"]
    bare = specification["normalizer"] is None and specification["pre_tokenizer"] is None
    if (
        not bare
        or model.get("type") != "BPE"
        or model["merges"]
        or model.get("unk_token")
        or model.get("byte_fallback")
    ):
        return None
    return frozenset(token for token in model["vocab"] if len(token) == 1)


def check_characters(text: str, known: frozenset[str], library) -> None:
    """ValueError that names the first character of `text` that is neither known nor of an added token."""
    if known.issuperset(text):
        return
    for token in library.get_added_tokens_decoder().values():
        text = text.replace(token.content, "")
    unknown = sorted(set(text) - known)
    if unknown:
        first = unknown[0]
        raise ValueError(
            f"{len(unknown)} of the text's characters are not in this tokenizer's {len(known)}, the first "
            f"{first!r} (U+{ord(first):04X}); make the tokenizer from text that has them, or use 'byte' or 'bpe'"
        )


def clean_up(text: str) -> str:
    """Takes out the spaces before English punctuation and contractions, as transformers' decoding does."""
    for spaced, plain in _CLEAN_UP:
        text = text.replace(spaced, plain)
    return text
