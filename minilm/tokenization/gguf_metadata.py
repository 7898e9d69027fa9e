"""The tokenizer inside a GGUF file, from its metadata: `tokenizer.ggml.*` and the chat template."""

from __future__ import annotations

from collections.abc import Mapping

from minilm.tokenization.models import library_errors, tokenizers_library
from minilm.tokenization.pieces import Pieces, PieceType, add_typed_tokens, piece_library
from minilm.tokenization.settings import TokenizerSettings
from minilm.tokenization.vocab_files import framed

__all__ = ["gguf_library"]

_KEY = "tokenizer.ggml."
_SOURCE = "the GGUF metadata"
# In the spelling of GGUF, "seperator" included.
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding"}
_NAMES |= {"cls": "cls", "mask": "mask"}

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# How text is split before pairs are merged, by the name in `tokenizer.ggml.pre`.
_SPLITS = {
    **dict.fromkeys(("default", "gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jina-en", "roberta-bpe"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "digits"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
}


def gguf_library(metadata: Mapping) -> tuple:
    """`(library, settings)` from a GGUF file's metadata, a mapping of its keys to plain values and lists."""
    kind = _get(metadata, "model", str)
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"{_SOURCE} names the tokenizer model {kind!r}; 'gpt2' (byte-level BPE) and 'llama' (SentencePiece's BPE) "
            "are supported: take the model's tokenizer.json instead"
        )
    tokens = _list(metadata, "tokens", str)
    if not tokens:
        raise ValueError(f"{_SOURCE} has no tokens; the file is damaged: fetch it again")
    types = _list(metadata, "token_type", int, default=[PieceType.NORMAL] * len(tokens))
    build = _byte_level if kind == "gpt2" else _sentencepiece
    library = build(metadata, tokens, types)
    settings = TokenizerSettings(special_tokens=_named(metadata, tokens), chat_templates=_templates(metadata))
    named = settings.special_tokens
    added = tokenizers_library().AddedToken
    library.add_special_tokens([added(token, special=True, normalized=False) for token in named.values()])
    first = _get(metadata, "add_bos_token", bool, default=kind == "llama" or _split(metadata) is _LLAMA3)
    last = _get(metadata, "add_eos_token", bool, default=False)
    framed(library, named.get("bos") if first else None, named.get("eos") if last else None)
    return library, settings


def _byte_level(metadata: Mapping, tokens: list[str], types: list[int]):
    tk = tokenizers_library()
    split = _split(metadata)
    if len(types) != len(tokens):
        raise ValueError(f"{_SOURCE}: {len(tokens)} tokens and {len(types)} token types; expected as many")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError(f"{_SOURCE}: {len(tokens) - len(vocabulary)} tokens have two ids; the file is damaged")
    merges = [tuple(merge.split(" ")) for merge in _list(metadata, "merges", str)]
    wrong = next((pair for pair in merges if len(pair) != 2), None)
    if wrong is not None:
        raise ValueError(f"{_SOURCE}: {' '.join(wrong)!r} is no merge: expected two tokens and a space; fetch it again")
    with library_errors(_SOURCE):
        # Llama 3 takes a whole word that is a token as it is, whether or not merges lead to it.
        library = tk.Tokenizer(tk.models.BPE(vocabulary, merges, ignore_merges=split is _LLAMA3))
    byte_level = tk.pre_tokenizers.ByteLevel
    if split == "gpt2":
        library.pre_tokenizer = byte_level(add_prefix_space=False)
    elif split == "digits":
        digits = tk.pre_tokenizers.Digits(individual_digits=True)
        library.pre_tokenizer = tk.pre_tokenizers.Sequence([digits, byte_level(add_prefix_space=False)])
    else:
        words = tk.pre_tokenizers.Split(tk.Regex(split), behavior="isolated")
        library.pre_tokenizer = tk.pre_tokenizers.Sequence([words, byte_level(add_prefix_space=False, use_regex=False)])
    if split is _QWEN2:
        library.normalizer = tk.normalizers.NFC()
    library.decoder = tk.decoders.ByteLevel()
    add_typed_tokens(library, tokens, types)
    return library


def _sentencepiece(metadata: Mapping, tokens: list[str], types: list[int]):
    architecture = metadata.get("general.architecture", "")
    if str(architecture).startswith("gemma"):
        raise ValueError(f"{_SOURCE} is of a {architecture}, whose scores do not order its merges: not supported")
    space = _get(metadata, "add_space_prefix", bool, default=True)
    pieces = Pieces(
        tokens,
        _list(metadata, "scores", (int, float)),
        types,
        byte_fallback=PieceType.BYTE in types,
        prefix="first" if space else "never",
        collapse_spaces=_get(metadata, "remove_extra_whitespaces", bool, default=False),
    )
    return piece_library(pieces, _SOURCE)


def _split(metadata: Mapping) -> str:
    name = _get(metadata, "pre", str, default="default")
    if name not in _SPLITS:
        raise ValueError(
            f"{_SOURCE} names the pre-tokenizer {name!r}; supported are {', '.join(sorted(_SPLITS))}: "
            "take the model's tokenizer.json instead"
        )
    return _SPLITS[name]


def _named(metadata: Mapping, tokens: list[str]) -> dict[str, str]:
    named = {}
    for name, spelled in _NAMES.items():
        index = _get(metadata, f"{spelled}_token_id", int, default=None)
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise ValueError(f"{_SOURCE}: {spelled}_token_id is {index}; ids go from 0 to {len(tokens) - 1}")
        named[name] = tokens[index]
    return named


def _templates(metadata: Mapping) -> dict[str, str]:
    start = "tokenizer.chat_template"
    found = {key: text for key, text in metadata.items() if key == start or key.startswith(start + ".")}
    wrong = next((key for key, text in found.items() if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"{_SOURCE}: {wrong} is a {type(found[wrong]).__name__}; expected text")
    return {key.removeprefix(start).removeprefix(".") or "default": text for key, text in found.items()}


_REQUIRED = object()


def _get(metadata: Mapping, name: str, kind, default=_REQUIRED):
    value = metadata.get(_KEY + name)
    if value is None:
        if default is _REQUIRED:
            raise ValueError(f"{_SOURCE} lacks {_KEY}{name}; the file is damaged, or holds no tokenizer")
        return default
    value = value.item() if hasattr(value, "item") else value  # a NumPy scalar
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{_SOURCE}: {_KEY}{name} is {value!r:.60}; expected {getattr(kind, '__name__', 'a number')}")
    return value


def _list(metadata: Mapping, name: str, kind, default=_REQUIRED) -> list:
    values = metadata.get(_KEY + name)
    if values is None:
        if default is _REQUIRED:
            raise ValueError(f"{_SOURCE} lacks {_KEY}{name}; the file is damaged, or holds no tokenizer")
        return default
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list | tuple) or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"{_SOURCE}: {_KEY}{name} is not a list of {getattr(kind, '__name__', 'number')}")
    return list(values)
