"""The three kinds of tokenizer that are made here, as objects of the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import contextmanager

from minilm.tokenization.byte_level import byte_to_character

__all__ = ["bpe_model", "byte_model", "char_model", "library_errors", "tokenizers_library"]


def char_model(texts: Iterable[str], special_tokens: Sequence[str]):
    """A token a character: a BPE without merges, so that a text falls into its characters."""
    characters = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise ValueError("a character tokenizer needs a text with at least one character, and this one is empty")
    tk = tokenizers_library()
    vocabulary = {character: index for index, character in enumerate(sorted(characters))}
    model = tk.Tokenizer(tk.models.BPE(vocab=vocabulary, merges=[]))
    model.decoder = tk.decoders.Fuse()
    return _with_special_tokens(model, special_tokens)


def byte_model(special_tokens: Sequence[str]):
    """A token a byte, its id the byte's value: a byte-level BPE without merges."""
    tk = tokenizers_library()
    vocabulary = {character: byte for byte, character in enumerate(byte_to_character())}
    model = tk.Tokenizer(tk.models.BPE(vocab=vocabulary, merges=[]))
    model.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = tk.decoders.ByteLevel()
    return _with_special_tokens(model, special_tokens)


def bpe_model(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str]):
    """Byte-level BPE with GPT-2's pre-tokenizer, trained on the texts."""
    check_special_tokens(special_tokens)
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size is {vocab_size}, and byte-level BPE needs at least {least}: "
            f"256 bytes and {len(special_tokens)} special tokens"
        )
    tk = tokenizers_library()
    model = tk.Tokenizer(tk.models.BPE())
    model.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tk.decoders.ByteLevel()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=list(byte_to_character()),
        min_frequency=2,
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return model


def check_special_tokens(special_tokens: Sequence[str]) -> None:
    """TypeError for a text, each of whose characters would be a token."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens is a text; expected a list of tokens: special_tokens=[{special_tokens!r}]")


def tokenizers_library():
    """The `tokenizers` library, imported on first use."""
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.processors
        import tokenizers.trainers
    except ImportError as error:
        raise ImportError(
            "minilm's tokenizers need the tokenizers library, which is not installed: pip install tokenizers"
        ) from error
    return tokenizers


@contextmanager
def library_errors(source, advice: str = "the file is damaged, or of another kind: fetch it again"):
    """What the library says about a file that it can't use, as a ValueError that names the file."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and its panics are BaseExceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{source} holds no usable tokenizer ({error}); {advice}") from error


def _with_special_tokens(model, special_tokens: Sequence[str]):
    check_special_tokens(special_tokens)
    added = tokenizers_library().AddedToken
    model.add_special_tokens([added(token, special=True, normalized=False) for token in special_tokens])
    return model
