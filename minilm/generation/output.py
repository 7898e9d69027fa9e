"""What `generate` returns on request beside the tokens, and how it is gathered while they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm import backend

from .options import GenerationConfig

__all__ = ["GenerateDecoderOnlyOutput", "GenerateEncoderDecoderOutput", "Record"]

PerStep = tuple[np.ndarray, ...]
PerStepAndLayer = tuple[tuple[np.ndarray, ...], ...]


@dataclass(kw_only=True)
class GenerateDecoderOnlyOutput:
    """What a decoder-only model generated; names and shapes are transformers', all are NumPy arrays.

    `sequences` (R, T + new). A step each: `logits` (B, V) as the model gave them and `scores` (B, V) after all
    processors (of beams their log probabilities), both float32; `attentions` (B, H, T, S) of each layer;
    `hidden_states` (B, T, C) before, between and after the layers. T is 1 after the first step with a cache, and B
    counts each beam. Of beams `sequences_scores` (R,), and `beam_indices` (R, new): the row of each step that a token
    was taken from, -1 after the end.

    >>> from minilm.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> out = model.generate(np.array([[1, 2]]), 3, return_dict_in_generate=True, output_scores=True)
    >>> out.sequences.shape, len(out.scores), out.scores[0].shape
    ((1, 5), 3, (1, 11))
    """

    sequences: np.ndarray
    sequences_scores: np.ndarray | None = None
    scores: PerStep | None = None
    logits: PerStep | None = None
    beam_indices: np.ndarray | None = None
    attentions: PerStepAndLayer | None = None
    hidden_states: PerStepAndLayer | None = None


@dataclass(kw_only=True)
class GenerateEncoderDecoderOutput:
    """What an encoder-decoder model wrote; as GenerateDecoderOnlyOutput, with what is known of each side.

    Of the encoder, once: `encoder_attentions` and `encoder_hidden_states`, a layer each.
    """

    sequences: np.ndarray
    sequences_scores: np.ndarray | None = None
    scores: PerStep | None = None
    logits: PerStep | None = None
    beam_indices: np.ndarray | None = None
    encoder_attentions: PerStep | None = None
    encoder_hidden_states: PerStep | None = None
    decoder_attentions: PerStepAndLayer | None = None
    cross_attentions: PerStepAndLayer | None = None
    decoder_hidden_states: PerStepAndLayer | None = None


class Record:
    """Gathers what was asked for, step by step."""

    def __init__(self, config: GenerationConfig, has_encoder: bool) -> None:
        side, self.has_encoder = "decoder_" if has_encoder else "", has_encoder
        self.wanted = {name: getattr(config, name) for name in ("output_attentions", "output_hidden_states")}
        names = [f"{side}attentions"] if config.output_attentions else []
        names += ["cross_attentions"] if config.output_attentions and has_encoder else []
        names += [f"{side}hidden_states"] if config.output_hidden_states else []
        self.layers: dict[str, list] = {name: [] for name in names}
        self.steps: dict[str, list] = {name: [] for name in ("logits", "scores") if getattr(config, f"output_{name}")}
        self.once: dict[str, tuple] = {}

    def encoder(self, out) -> None:
        """Takes up what the encoder said."""
        for name in ("attentions", "hidden_states"):
            if self.wanted[f"output_{name}"]:
                self.once[f"encoder_{name}"] = _arrays(getattr(out, name))

    def model(self, out) -> None:
        """Takes up what the model said at a step."""
        for name, steps in self.layers.items():
            steps.append(_arrays(getattr(out, name)))

    def step(self, **arrays: np.ndarray) -> None:
        """Takes up logits or scores (B, V) of a step, where they were asked for."""
        for name, array in arrays.items():
            if name in self.steps:
                self.steps[name].append(array.astype(np.float32))

    def repeat(self, rows: np.ndarray) -> None:
        """Makes the first step's rows those of the later ones."""
        for steps in self.layers.values():
            steps[0] = tuple(array[rows] for array in steps[0])

    def output(self, sequences: np.ndarray, **of_beams: np.ndarray):
        """The object that `generate` returns."""
        kind = GenerateEncoderDecoderOutput if self.has_encoder else GenerateDecoderOnlyOutput
        gathered = {name: tuple(steps) for name, steps in (*self.steps.items(), *self.layers.items())}
        return kind(sequences=sequences, **gathered, **self.once, **of_beams)


def _arrays(tensors) -> tuple[np.ndarray, ...]:
    return tuple(backend.to_numpy(tensor.data) for tensor in tensors)
