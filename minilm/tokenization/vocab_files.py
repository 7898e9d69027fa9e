"""Vocabularies as the models of 2018 and 2019 published them: BERT's vocab.txt, GPT-2's vocab.json and merges.txt."""

from __future__ import annotations

from pathlib import Path

from minilm.tokenization.models import library_errors, tokenizers_library
from minilm.tokenization.settings import TokenizerSettings, read_json, read_text

__all__ = ["byte_level_library", "framed", "wordpiece_library"]

_BERT_TOKENS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_GPT2_TOKENS = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}


def wordpiece_library(path: Path, settings: TokenizerSettings):
    """BERT's WordPiece from a `vocab.txt`, a token a line (Devlin et al. 2018); `[CLS] A [SEP] B [SEP]` around texts.

    `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of tokenizer_config.json have BERT's defaults: lower
    case, accents stripped as the case goes, every CJK character a word.
    """
    tk = tokenizers_library()
    tokens = read_text(path).split("\n")
    if tokens and tokens[-1] == "":
        tokens.pop()
    tokens = [token.removesuffix("\r") for token in tokens]
    settings.special_tokens = named = {**_BERT_TOKENS, **settings.special_tokens}
    settings.token_type_ids = settings.token_type_ids or "model_input_names" not in settings.config
    vocabulary = {token: index for index, token in enumerate(tokens)}
    missing = [named[name] for name in ("unk", "cls", "sep") if named[name] not in vocabulary]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: expected BERT's vocab.txt, a token a line; fetch it again"
        )
    config = settings.config
    with library_errors(path):
        library = tk.Tokenizer(tk.models.WordPiece(vocabulary, unk_token=named["unk"]))
        library.normalizer = tk.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=config.get("tokenize_chinese_chars", True),
            strip_accents=config.get("strip_accents"),
            lowercase=config.get("do_lower_case", True),
        )
    library.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    library.decoder = tk.decoders.WordPiece(prefix="##")
    cls, sep = named["cls"], named["sep"]
    library.post_processor = tk.processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return library


def byte_level_library(vocabulary_path: Path, merges_path: Path, settings: TokenizerSettings):
    """GPT-2's byte-level BPE from `vocab.json` (token -> id) and `merges.txt` (a pair a line, in order learned)."""
    vocabulary = read_json(vocabulary_path, dict)
    wrong = next(
        (token for token, index in vocabulary.items() if type(index) is not int or not 0 <= index < 2**31), None
    )
    if wrong is not None or not vocabulary:
        what = f"the id of {wrong!r} is {vocabulary[wrong]!r}" if vocabulary else "it is empty"
        raise ValueError(f"{vocabulary_path}: expected an id for each token, and {what}; fetch the file again")
    merges = []
    for number, line in enumerate(read_text(merges_path).split("\n"), 1):
        if line.strip() and not (number == 1 and line.startswith("#version")):
            pair = line.removesuffix("\r").split(" ")
            if len(pair) != 2:
                raise ValueError(f"{merges_path}, line {number}: expected two tokens and a space, got {line[:60]!r}")
            merges.append(tuple(pair))
    defaults = {name: token for name, token in _GPT2_TOKENS.items() if token in vocabulary}
    settings.special_tokens = {**defaults, **settings.special_tokens}
    tk = tokenizers_library()
    with library_errors(f"{vocabulary_path} and {merges_path}"):
        library = tk.Tokenizer(tk.models.BPE(vocabulary, merges))
    prefix = bool(settings.config.get("add_prefix_space", False))
    library.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    library.decoder = tk.decoders.ByteLevel()
    return library


def framed(library, first: str | None, last: str | None):
    """Puts `first` before each text and `last` after it (a begin- and an end-of-text token), where they are not None.

    As transformers does, the second text of a pair gets them too, and token type 1.
    """
    tk = tokenizers_library()
    ends = {token: library.token_to_id(token) for token in (first, last) if token}
    absent = [token for token, index in ends.items() if index is None]
    if absent:
        raise ValueError(f"{absent[0]!r} is to stand around each text, and is not in the vocabulary")
    # In a template a token is a name, which has no colon and no dollar sign; what it stands for is said beside it.
    names = {token: f"end {number}" if set(":$") & set(token) else token for number, token in enumerate(ends)}
    parts = [("$A", 0), ("$B", 1)]
    frames = [[names.get(first), text, names.get(last)] for text, _ in parts]
    single, second = ([f"{piece}:{type_id}" for piece in frame if piece] for frame, (_, type_id) in zip(frames, parts))
    library.post_processor = tk.processors.TemplateProcessing(
        single=single,
        pair=[*single, *second],
        special_tokens=[{"id": names[token], "ids": [index], "tokens": [token]} for token, index in ends.items()],
    )
    return library
