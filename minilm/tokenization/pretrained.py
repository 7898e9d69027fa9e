"""Which files of a published model's folder make its tokenizer."""

from __future__ import annotations

from pathlib import Path

from minilm.tokenization.marian import marian_library
from minilm.tokenization.models import library_errors, tokenizers_library
from minilm.tokenization.sentencepiece_files import sentencepiece_library
from minilm.tokenization.settings import TokenizerSettings, add_tokens, read_settings, read_text
from minilm.tokenization.vocab_files import byte_level_library, framed, wordpiece_library

__all__ = ["load_folder", "load_json"]

_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model")
_PROBE = "a \N{GRINNING FACE}"  # what no vocabulary may lack: a model without its unknown token fails here, not later


def load_folder(folder: Path) -> tuple:
    """`(library, settings)` from the first of these that the folder holds, with its settings and added tokens:

    tokenizer.json; source.spm + target.spm + vocab.json (Marian); a SentencePiece model; vocab.json + merges.txt
    (GPT-2); vocab.txt (BERT).
    """

    def has(*names: str) -> bool:
        return all((folder / name).is_file() for name in names)

    settings = read_settings(folder)
    model = next((name for name in _SENTENCEPIECE if has(name)), None)
    if has("tokenizer.json"):
        library, source = load_json(folder / "tokenizer.json"), folder / "tokenizer.json"
        _fill_in_defaults(library, settings)
        _change_as_told(library, settings, source)
    elif has("source.spm", "target.spm", "vocab.json"):
        library, source = marian_library(folder, settings), folder / "vocab.json"
    elif model is not None:
        library, source = sentencepiece_library(folder / model, settings), folder / model
    elif has("vocab.json", "merges.txt"):
        library, source = (
            byte_level_library(folder / "vocab.json", folder / "merges.txt", settings),
            folder / "vocab.json",
        )
    elif has("vocab.txt"):
        library, source = wordpiece_library(folder / "vocab.txt", settings), folder / "vocab.txt"
    else:
        raise FileNotFoundError(
            f"no tokenizer in {folder}: expected tokenizer.json, vocab.txt, vocab.json with merges.txt, "
            "a SentencePiece model (tokenizer.model, spiece.model), or source.spm and target.spm with vocab.json"
        )
    add_tokens(library, settings, source)
    if source.name == "vocab.json" and not has("source.spm"):
        _frame(library, settings)
    return library, settings


def load_json(path: Path):
    """The tokenizer of a `tokenizer.json`; ValueError naming the file if it is none."""
    advice = "save one with Tokenizer.save, or transformers' tokenizer.save_pretrained"
    try:
        with library_errors(path, advice):
            library = tokenizers_library().Tokenizer.from_str(read_text(path))
            library.encode(_PROBE)
            return library
    except ValueError as error:
        raise ValueError(f"{path} is not a tokenizer.json of the tokenizers library: {error}") from error


def _frame(library, settings: TokenizerSettings) -> None:
    """`add_bos_token` and `add_eos_token` for a vocabulary that puts nothing around a text of itself."""
    ends, config = settings.special_tokens, settings.config
    first = ends.get("bos") if config.get("add_bos_token") else None
    last = ends.get("eos") if config.get("add_eos_token") else None
    framed(library, first, last)


def _fill_in_defaults(library, settings: TokenizerSettings) -> None:
    """The names that a class in transformers has when tokenizer_config.json is silent, if the tokens are there."""
    bert = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    gpt2 = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
    llama = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
    usual = {"Bert": bert, "DistilBert": bert, "Electra": bert, "GPT2": gpt2, "Llama": llama}
    usual["T5"] = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    for family, names in usual.items():
        if settings.tokenizer_class.startswith(family):
            for name, token in names.items():
                if f"{name}_token" not in settings.config and library.token_to_id(token) is not None:
                    settings.special_tokens.setdefault(name, token)


def _change_as_told(library, settings: TokenizerSettings, source: Path) -> None:
    """What tokenizer_config.json says of BERT's normalizer and of GPT-2's first space goes before tokenizer.json.

    As in transformers, where it names their class.
    """
    if settings.tokenizer_class in ("", "PreTrainedTokenizer", "TokenizersBackend"):
        return
    tk = tokenizers_library()
    bert = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    for step, kind, keys in (
        ("normalizer", tk.normalizers.BertNormalizer, bert),
        ("pre_tokenizer", tk.pre_tokenizers.ByteLevel, {"add_prefix_space": "add_prefix_space"}),
    ):
        part = getattr(library, step)
        for key in keys.keys() & settings.config.keys() if isinstance(part, kind) else ():
            value = settings.config[key]
            if value is not None or key == "strip_accents":  # which None makes follow the case
                with library_errors(source.with_name("tokenizer_config.json")):
                    setattr(part, keys[key], value)
                    setattr(library, step, part)
