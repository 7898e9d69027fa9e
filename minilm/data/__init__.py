"""Text to batches: a corpus of files, token files on disk, and batches whose order is a function of a seed.

corpus.py       which files, in which order, and that they are text
split.py        which of it is held out for validation
token_file.py   tokens on disk: a header, then the ids, memory-mapped
prepare.py      a corpus through a tokenizer into a folder of token files, once
shuffle.py      a permutation that takes no memory
loader.py       batches: training's shuffled ones, evaluation's that cover everything once; prefetch.py: ahead of time
"""

from minilm.data.corpus import Corpus, Document, stdlib_corpus
from minilm.data.errors import DataError
from minilm.data.loader import BatchLoader, evaluation_batches
from minilm.data.prefetch import Prefetcher
from minilm.data.prepared import PreparedData, prepare
from minilm.data.token_file import TokenFile, TokenFileWriter

__all__ = [
    "BatchLoader",
    "Corpus",
    "DataError",
    "Document",
    "Prefetcher",
    "PreparedData",
    "TokenFile",
    "TokenFileWriter",
    "evaluation_batches",
    "prepare",
    "stdlib_corpus",
]
