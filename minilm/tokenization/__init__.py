"""Text to token ids and back: one small class around the `tokenizers` library, and streaming decoding.

Published tokenizers are read from the files that models come with (see `Tokenizer.from_pretrained`, `.from_gguf`); what
is saved is a `tokenizer.json` that `tokenizers` and `transformers` load as it is (Marian: its own three files). The
library itself is imported when the first tokenizer is made, so that `import minilm` stays fast.
"""

from minilm.tokenization.batch import BatchEncoding
from minilm.tokenization.chat import ChatTemplateError
from minilm.tokenization.end_of_text import end_tokens
from minilm.tokenization.recipe import TokenizerRecipe
from minilm.tokenization.stops import StopFinder
from minilm.tokenization.streaming import StreamDecoder
from minilm.tokenization.tokenizer import Tokenizer

__all__ = [
    "BatchEncoding",
    "ChatTemplateError",
    "StopFinder",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerRecipe",
    "end_tokens",
]
