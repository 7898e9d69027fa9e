"""Text to token ids and back: one small class around the `tokenizers` library, and streaming decoding.

Everything that is saved is a `tokenizer.json` that `tokenizers` and `transformers` load as it is. The library itself is
imported when the first tokenizer is made, so that `import minilm` stays fast.
"""

from minilm.tokenization.recipe import TokenizerRecipe
from minilm.tokenization.streaming import StreamDecoder
from minilm.tokenization.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerRecipe"]
