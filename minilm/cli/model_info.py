"""What `minilm info MODEL` says of a model: its size in numbers and bytes, what a token costs, its tokenizer."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

__all__ = ["model_facts"]

# Of an encoder and a decoder: the parts of the decoder that read what the encoder made, once a token of the source.
_CROSS = ("encoder_attn.k_proj", "encoder_attn.v_proj", "EncDecAttention.k", "EncDecAttention.v")


def model_facts(path: str) -> Iterator[tuple[str, str]]:
    """Names and values, each as it is found out."""
    from .loading import load, load_alone

    try:
        model, tokenizer = load(path, "cpu")
    except FileNotFoundError as error:  # of the model, which raises it again, or of its tokenizer
        model, tokenizer, without = load_alone(path, "cpu"), None, str(error)
    kinds = Counter()
    for tensor in (*model.parameters(), *model.buffers()):
        kinds[tensor.dtype.name] += tensor.data.nbytes
    yield "model", f"{type(model).__name__} ({model.architecture}), {path}"
    yield "parameters", f"{_numbers(model):,}"
    yield "memory", ", ".join(f"{_bytes(size)} of {_kind(name)}" for name, size in kinds.most_common())
    yield "shape", _shape(model.config)
    longest = getattr(model, "max_length", None) or _first(model.config, ("max_position_embeddings",))
    if longest is not None:
        yield "context", "of any length" if longest >= sys.maxsize else f"{longest:,} tokens"
    yield from _costs(model)
    yield "tokenizer", repr(tokenizer) if tokenizer else f"none: {without}"
    if tokenizer and tokenizer.chat_templates:
        yield "chat", f"has a template: minilm chat {path}"


def _numbers(model) -> int:
    """How many numbers the model's weights are, those in blocks included."""
    return model.n_parameters + sum(_in_blocks(module) for module in _quantized(model))


def _quantized(model) -> list:
    from minilm.nn import QuantizedEmbedding, QuantizedLinear

    return [module for module in model.modules() if isinstance(module, (QuantizedEmbedding, QuantizedLinear))]


def _in_blocks(module) -> int:
    from minilm_kernels.block_formats import length_of

    return module.blocks.shape[0] * length_of(module.blocks.data, module.format)


def _costs(model) -> Iterator[tuple[str, str]]:
    """What a token costs: the products with the weights; attention, which grows with the text, is not in it."""
    from minilm.models.encoder_decoder import EncoderDecoderLM
    from minilm.models.recurrent import RecurrentLM, RecurrentSeq2Seq

    read, written = _multiplied(model)
    if isinstance(model, EncoderDecoderLM):
        yield "a token read", f"{_operations(read)}, and {_bytes(_keys(model.config))} of keys and values"
        yield "a token made", f"{_operations(written)}, and {_bytes(_keys(model.config))} of keys and values"
    elif isinstance(model, RecurrentSeq2Seq):
        yield "a token read", f"{_operations(read)}, and {_bytes(4 * model.config.hidden_size)} to look back at"
        yield "a token made", f"{_operations(written)}; the state stays as large as it is"
    elif isinstance(model, RecurrentLM):
        yield "a token", f"{_operations(read + written)} forward; the state stays as large as it is"
    elif hasattr(model, "generate"):
        kept = _bytes(_keys(model.config))
        yield "a token", f"{_operations(read + written)} forward, and {kept} of keys and values"
    else:
        yield "a token", f"{_operations(read + written)} forward"


def _multiplied(model) -> tuple[int, int]:
    """By how many numbers a token is multiplied, in the encoder and in the rest: matrices that are no mere tables.

    A table that is the output layer too counts; one that is only looked up in does not, nor do biases.
    """
    from minilm.nn import Embedding, QuantizedEmbedding

    config, counts = model.config, [0, 0]
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, Embedding)}
    for name, parameter in model.named_parameters():
        if len(parameter.shape) > 1 and id(parameter) not in tables:
            of_source = "encoder" in name.split(".") or any(part in name for part in _CROSS)
            counts[not of_source] += parameter.size
    blocks = [module for module in _quantized(model) if not isinstance(module, QuantizedEmbedding)]
    counts[1] += sum(_in_blocks(module) for module in blocks)
    if _has_vocabulary_output(model) and config.tie_word_embeddings:
        width = _first(config, ("hidden_size", "n_embd", "d_model"))
        counts[1] += (_first(config, ("target_vocab_size",)) or config.vocab_size) * width
    return counts[0], counts[1]


def _has_vocabulary_output(model) -> bool:
    from minilm.models import BertForMaskedLM, BertForPreTraining, RecurrentSeq2Seq

    return hasattr(model, "generate") or isinstance(model, (BertForMaskedLM, BertForPreTraining, RecurrentSeq2Seq))


def _keys(config) -> int:
    """Bytes of the keys and values of a token in all layers (the decoder's, where there are two sides), in float32."""
    layers = _first(config, ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer"))
    query_heads = _first(config, ("num_attention_heads", "n_head", "decoder_attention_heads", "num_heads"))
    heads = _first(config, ("num_key_value_heads",)) or query_heads
    width = _first(config, ("hidden_size", "n_embd", "d_model"))
    return 2 * 4 * layers * heads * (_first(config, ("head_dim", "d_kv")) or width // query_heads)


def _shape(config) -> str:
    two_sides = hasattr(config, "num_decoder_layers")  # T5's num_layers are the encoder's
    names = {
        "layers": ("num_hidden_layers", "n_layer", *(() if two_sides else ("num_layers",))),
        "encoder layers": ("encoder_layers", *(("num_layers",) if two_sides else ())),
        "decoder layers": ("decoder_layers", "num_decoder_layers"),
        "heads": ("num_attention_heads", "n_head", "encoder_attention_heads", "num_heads"),
        "key heads": ("num_key_value_heads",),
        "wide": ("hidden_size", "n_embd", "d_model"),
        "wide inside": ("intermediate_size", "n_inner", "encoder_ffn_dim", "d_ff"),
        "tokens": ("vocab_size",),
    }
    found = ((_first(config, keys), label) for label, keys in names.items())
    return ", ".join(f"{value:,} {label}" for value, label in found if value is not None)


def _first(config, names: tuple[str, ...]):
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _kind(dtype: str) -> str:
    return "blocks" if dtype == "uint8" else dtype


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def _operations(numbers: int) -> str:
    """Of products with so many numbers, each a multiplication and an addition."""
    return f"{2 * numbers / 1e6:,.1f} MFLOP" if numbers >= 500_000 else f"{2 * numbers / 1e3:,.1f} kFLOP"
