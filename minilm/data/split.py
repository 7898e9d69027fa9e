"""Which part of a corpus is held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from minilm.data.corpus import Document
from minilm.data.errors import DataError

__all__ = ["Part", "split"]

# A document this large a share of the corpus is cut rather than kept whole: alone in either part it would skew it.
_LARGE_SHARE = 0.05


class Part(NamedTuple):
    """The characters `start` to `stop` of a document."""

    document: Document
    start: int
    stop: int


def split(documents: Sequence[Document], val_fraction: float) -> tuple[list[Part], list[Part]]:
    """The parts for training and for validation, each in the documents' order.

    A document with at least 5% of all characters gives its last `val_fraction` to validation, so that a single file is
    split as nanoGPT splits it: the first int(n * (1 - val_fraction)) characters train. Of smaller documents whole ones
    are held out, in the order of a hash of their names, until they have `val_fraction` of the small ones' characters:
    a random choice that is the same on every machine.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is the share held out for validation, between 0 and 1; got {val_fraction}")
    total = sum(document.characters for document in documents)
    small = [document for document in documents if document.characters < _LARGE_SHARE * total]
    budget = val_fraction * sum(document.characters for document in small)
    held_out, taken = set(), 0
    for document in sorted(small, key=_by_hash):
        # Past the middle of a document the budget is nearer with it than without; the very first is always taken
        # when no large document gives validation anything.
        if taken + document.characters / 2 > budget and (held_out or len(small) < len(documents)):
            break
        held_out.add(document)
        taken += document.characters

    train, val = [], []
    whole = set(small)
    for document in documents:
        if document in whole:
            cut = 0 if document in held_out else document.characters
        else:
            cut = int(document.characters * (1 - val_fraction))
        train.append(Part(document, 0, cut))
        val.append(Part(document, cut, document.characters))
    train = [part for part in train if part.start < part.stop]
    val = [part for part in val if part.start < part.stop]
    if not train or not val:
        raise DataError(
            f"a corpus of {total} characters in {len(documents)} documents leaves nothing for "
            f"{'validation' if train else 'training'} with val_fraction={val_fraction}; give more text"
        )
    return train, val


def _by_hash(document: Document) -> tuple[bytes, str]:
    # Two files given by name may have one name; a file's name need not be UTF-8.
    return hashlib.sha256(document.name.encode("utf-8", "surrogateescape")).digest(), str(document.path)
