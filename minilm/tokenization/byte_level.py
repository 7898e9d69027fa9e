"""GPT-2's printable alphabet for bytes: how byte-level tokenizers write arbitrary bytes as JSON strings."""

from __future__ import annotations

from functools import cache

__all__ = ["byte_to_character", "token_to_bytes"]


@cache
def byte_to_character() -> tuple[str, ...]:
    """The 256 characters that stand for the bytes 0..255, in order of the bytes.

    A byte whose Latin-1 character is printable stands for itself; the 68 others (controls, spaces, the soft hyphen)
    take U+0100, U+0101, ... in order, so that a vocabulary has no blank and no control character (Radford et al. 2019).

    >>> byte_to_character()[ord("A")], byte_to_character()[ord(" ")], byte_to_character()[0]
    ('A', 'Ġ', 'Ā')
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    stand_ins = iter(range(256, 512))
    return tuple(chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256))


def token_to_bytes(token: str) -> bytes:
    """The bytes that a byte-level token stands for; a token outside the alphabet (an added one) is its own UTF-8.

    >>> token_to_bytes("Ġthe"), token_to_bytes("<a b>")
    (b' the', b'<a b>')
    """
    inverse = _character_to_byte()
    if all(character in inverse for character in token):
        return bytes(inverse[character] for character in token)
    return token.encode("utf-8")


@cache
def _character_to_byte() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_to_character())}
