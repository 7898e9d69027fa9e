"""Reading protocol buffers without their schema: what SentencePiece stores and answers in, and its library hides."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["protobuf_fields"]


def protobuf_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a message, in order; a text, a list or a message is bytes, a float too.

    ValueError where the bytes are no message.

    >>> list(protobuf_fields(b"\\x08\\x96\\x01\\x12\\x02hi"))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire == 2:
                length, at = _varint(data, at)
            else:
                length = {1: 8, 5: 4}.get(wire)
            if length is None or at + length > len(data):
                raise ValueError(f"field {number} is damaged")
            value = data[at : at + length]
            at += length
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, seven bits a byte, the least first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
