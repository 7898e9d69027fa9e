"""Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344), and the original Transformer (Vaswani et al. 2017).

BART's layers with sinusoidal positions and no norm of the embeddings; each side may have a vocabulary of its own.
Weight names, shapes and config keys are those of transformers' MarianMTModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from minilm.backend import to_numpy

from .bart import BartConfig, BartForConditionalGeneration

__all__ = ["MarianConfig", "MarianMTModel"]


@dataclass
class MarianConfig(BartConfig):
    """The shape of a Marian model; the defaults are transformers'.

    >>> MarianConfig(vocab_size=50, pad_token_id=49).target_vocab_size
    50
    """

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None  # None: vocab_size
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: int | None = 58100
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 0
    decoder_start_token_id: int | None = 58100
    forced_eos_token_id: int | list[int] | None = 0

    model_type = "marian"
    learned_positions = False
    layernorm_embedding = False

    def __post_init__(self) -> None:
        if self.decoder_vocab_size is None:
            self.decoder_vocab_size = self.vocab_size
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise ValueError(
                f"embeddings can't be shared between {self.vocab_size} tokens and the decoder's "
                f"{self.decoder_vocab_size}; make share_encoder_decoder_embeddings false"
            )
        super().__post_init__()

    @property
    def target_vocab_size(self) -> int:
        return self.decoder_vocab_size

    @classmethod
    def transformer_base(cls, vocab_size: int = 37000, **changes) -> Self:
        """The base model of "Attention Is All You Need" (65M parameters): 6 + 6 layers, 512 wide, 8 heads, ReLU.

        One table of embeddings for both sides and the output, scaled by sqrt(d_model) at the input; weights begin with
        a standard deviation of 1 / sqrt(d_model). Positions hold all sines first and then all cosines, where the
        paper has them by turns: the same but for the order of the dimensions. The tokens 0, 1 and 2 begin a text, pad
        it and end it, and 2 starts the decoder. `changes` are other keys of the config.

        >>> MarianConfig.transformer_base(vocab_size=100, d_model=64).encoder_layers
        6
        """
        d_model = changes.pop("d_model", 512)
        base = {
            "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
            "encoder_ffn_dim": 4 * d_model, "decoder_ffn_dim": 4 * d_model, "activation_function": "relu",
            "scale_embedding": True, "init_std": d_model**-0.5, "bos_token_id": 0, "pad_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
        }  # fmt: skip
        return cls(vocab_size=vocab_size, d_model=d_model, **{**base, **changes})


class MarianMTModel(BartForConditionalGeneration):
    """Marian's translation model, and the original Transformer.

    >>> import numpy as np
    >>> config = MarianConfig.transformer_base(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
    >>> MarianMTModel(config).eval().generate(np.array([[7, 8, 2]]), max_new_tokens=4, num_beams=2).shape[0]
    1
    """

    config_class = MarianConfig
    architecture = "MarianMTModel"
    shifts_input_ids = False

    def own_names(self, weights: dict) -> dict:
        """As BART's, without the table of sines that some files store. Raises ValueError for another table."""
        own = to_numpy(self.encoder.embed_positions.data)
        for name in [name for name in weights if name.endswith("coder.embed_positions.weight")]:
            stored = to_numpy(weights[name]).astype(np.float32)
            if stored.shape != own.shape or np.abs(stored - own).max() > 0.01:  # a table in bfloat16 is off by 0.004
                raise ValueError(f"the file's {name} is not the table of sines and cosines of a Marian model")
            weights = {other: x for other, x in weights.items() if other != name}
        return super().own_names(weights)
