"""SentencePiece's own files (`tokenizer.model`, `spiece.model`, `source.spm`), read by the sentencepiece library."""

from __future__ import annotations

from pathlib import Path

from minilm.tokenization.pieces import Pieces, PieceType, piece_library
from minilm.tokenization.protobuf import protobuf_fields
from minilm.tokenization.settings import TokenizerSettings
from minilm.tokenization.vocab_files import framed

__all__ = ["load_processor", "sentencepiece_library"]

_UNIGRAM, _BPE = 1, 2
_DEFAULTS = {"Llama": {"bos", "eos", "unk"}, "T5": {"eos", "unk", "pad"}}
# Their classes in transformers give other ids than the file: only the tokenizer.json says which.
_RENUMBERED = ("XLMRoberta", "Camembert", "MBart", "Nllb", "Pegasus", "BigBird", "Reformer", "XLNet", "DebertaV2")


def load_processor(path: Path):
    """The library's processor of one file; ImportError without the library, ValueError for a file that is none."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            f"{path.name} is a SentencePiece model, and the sentencepiece library is not installed: "
            "pip install 'minilm[sentencepiece]'"
        ) from error
    processor, data = sentencepiece.SentencePieceProcessor(), path.read_bytes()
    try:
        if not data or not processor.LoadFromSerializedProto(data):
            raise ValueError("it is empty")
        return processor
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a SentencePiece model ({error}); fetch the file again") from error


def sentencepiece_library(path: Path, settings: TokenizerSettings):
    """The unigram or BPE model of a file, with the special tokens and the frame of its family.

    A unigram model ends each text with its end-of-text token (T5), a BPE model begins it with the begin-of-text token
    (Llama), unless `add_bos_token` and `add_eos_token` of tokenizer_config.json say otherwise. A T5 gets its
    `extra_ids` (100) sentinels `<extra_id_0>`, ... at the end of the vocabulary.
    """
    family = settings.tokenizer_class
    if family.startswith(_RENUMBERED):
        raise ValueError(
            f"{path}: a {family} numbers the pieces in its own way, which this file does not say; put the model's "
            "tokenizer.json beside it (transformers' AutoTokenizer.from_pretrained(...).save_pretrained writes one)"
        )
    processor = load_processor(path)
    count = processor.get_piece_size()
    try:
        tokens = [processor.id_to_piece(index) for index in range(count)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has a piece that is not UTF-8 ({error}); fetch the file again") from error
    scores = [processor.get_score(index) for index in range(count)]
    types, trainer, normalizer = _model(path)
    kind = trainer.get(3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"{path}: only SentencePiece's unigram and BPE models are supported; this is of type {kind}")
    unigram = kind == _UNIGRAM
    named = {"bos": processor.bos_id(), "eos": processor.eos_id(), "unk": processor.unk_id(), "pad": processor.pad_id()}
    wanted = next((names for prefix, names in _DEFAULTS.items() if family.startswith(prefix)), named.keys())
    present = {name: tokens[index] for name, index in named.items() if index >= 0 and name in wanted}
    settings.special_tokens = {**present, **settings.special_tokens}
    if family.startswith("T5"):
        number = settings.config.get("extra_ids", 100)
        if type(number) is not int or not 0 <= number <= 10_000:
            raise ValueError(
                f"{path.with_name('tokenizer_config.json')}: extra_ids is {number!r}; expected 0 to 10,000"
            )
        there = set(tokens)
        sentinels = [f"<extra_id_{index}>" for index in reversed(range(number))]
        sentinels = [token for token in sentinels if token not in there]
        tokens, scores = [*tokens, *sentinels], [*scores, *[0.0] * len(sentinels)]
        types += [PieceType.CONTROL] * len(sentinels)
    prefix = "always" if unigram or settings.config.get("legacy") else "first"
    if not settings.config.get("add_prefix_space", normalizer.get(3, 1)):
        prefix = "never"
    pieces = Pieces(
        tokens,
        scores,
        types,
        unigram=unigram,
        byte_fallback=PieceType.BYTE in types,
        charsmap=normalizer.get(2, b""),
        prefix=prefix,
        collapse_spaces=bool(normalizer.get(4, 1)),
    )
    library = piece_library(pieces, path)
    first = settings.config.get("add_bos_token", not unigram)
    last = settings.config.get("add_eos_token", unigram)
    ends = settings.special_tokens
    return framed(library, ends.get("bos") if first else None, ends.get("eos") if last else None)


def _model(path: Path) -> tuple[list[int], dict, dict]:
    """What the library reads and does not show: each piece's type, how the model was trained, how it normalizes text.

    In the file's message, fields 1 are the pieces, and 2 and 3 the latter two, messages themselves: number -> value.
    """
    types, parts = [], {2: b"", 3: b""}
    try:
        for number, value in protobuf_fields(path.read_bytes()):
            if number == 1:
                types.append(dict(protobuf_fields(value)).get(3, PieceType.NORMAL))
            else:
                parts[number] = value
        return types, dict(protobuf_fields(parts[2])), dict(protobuf_fields(parts[3]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a SentencePiece model ({error}); fetch the file again") from error
