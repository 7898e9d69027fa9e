"""Special tokens by name: which token begins a text, ends it, fills a batch, and so on."""

from __future__ import annotations

__all__ = ["SPECIAL_NAMES", "NamedSpecialTokens"]

SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class NamedSpecialTokens:
    """Gives a tokenizer `bos_token`, `bos_token_id`, `eos_token`, ...: None where it has no such token.

    A token is set by name and must be in the vocabulary: `tokenizer.pad_token = tokenizer.eos_token` is what a
    decoder-only model without a padding token is batched with.
    """

    @property
    def special_tokens(self) -> dict[str, str]:
        """The tokens that are set, as templates know them: {"bos_token": "<s>", ...}."""
        return {f"{name}_token": token for name in SPECIAL_NAMES if (token := self._named.get(name)) is not None}

    def _set_named(self, name: str, token: str | None) -> None:
        if token is not None and self.token_to_id(token) is None:
            what = "end-of-text" if name == "eos" else name
            raise ValueError(f"the {what} token {token!r} is not in the vocabulary; name one that is")
        self._named[name] = token


def _token(name: str) -> property:
    return property(
        lambda self: self._named.get(name),
        lambda self, token: self._set_named(name, token),
        doc=f"The {name} token as it is written in the vocabulary, or None.",
    )


def _token_id(name: str) -> property:
    def get(self) -> int | None:
        token = self._named.get(name)
        return None if token is None else self.token_to_id(token)

    return property(get, doc=f"The id of the {name} token, or None.")


for _name in SPECIAL_NAMES:
    setattr(NamedSpecialTokens, f"{_name}_token", _token(_name))
    setattr(NamedSpecialTokens, f"{_name}_token_id", _token_id(_name))
