"""What `minilm info MODEL` says of a model: its size in numbers and bytes, what a token costs, its tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

__all__ = ["model_facts"]


def model_facts(path: str) -> Iterator[tuple[str, str]]:
    """Names and values, each as it is found out."""
    from .loading import load

    model, tokenizer = load(path, "cpu")
    config = model.config
    tensors = [*model.parameters(), *model.buffers()]
    kinds = Counter()
    for tensor in tensors:
        kinds[tensor.dtype.name] += tensor.data.nbytes
    yield "model", f"{type(model).__name__} ({model.architecture}), {path}"
    yield "parameters", f"{_numbers(model):,}"
    yield "memory", ", ".join(f"{size / 2**20:,.1f} MiB of {_kind(name)}" for name, size in kinds.most_common())
    yield "shape", _shape(config)
    if hasattr(model, "max_length"):
        yield "context", f"{model.max_length:,} tokens"
    yield "a token", f"{2 * _multiplied(model) / 1e6:,.1f} MFLOP forward, and {_cache(config)} of keys and values"
    yield "tokenizer", repr(tokenizer)
    if tokenizer.chat_templates:
        yield "chat", f"has a template: minilm chat {path}"


def _numbers(model) -> int:
    """How many numbers the model's weights are, those in blocks included."""
    from minilm.nn import QuantizedEmbedding, QuantizedLinear

    blocks = [module for module in model.modules() if isinstance(module, (QuantizedEmbedding, QuantizedLinear))]
    return model.n_parameters + sum(_in_blocks(module) for module in blocks)


def _multiplied(model) -> int:
    """How many of them a token is multiplied by: all but tables that are only looked up in."""
    tables = {
        name: parameter.size
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[0].rpartition(".")[2] in ("wpe", "position_embeddings", "token_type_embeddings")
    }
    count = _numbers(model) - sum(tables.values())
    if hasattr(model, "lm_head"):  # then the table of tokens is only looked up in
        count -= model.config.vocab_size * model.lm_head.weight.shape[1] if hasattr(model.lm_head, "weight") else 0
    return count


def _in_blocks(module) -> int:
    from minilm_kernels.block_formats import length_of

    return module.blocks.shape[0] * length_of(module.blocks.data, module.format)


def _kind(dtype: str) -> str:
    return "blocks" if dtype == "uint8" else dtype


def _shape(config) -> str:
    names = {
        "layers": ("num_hidden_layers", "n_layer", "encoder_layers"),
        "heads": ("num_attention_heads", "n_head", "encoder_attention_heads"),
        "key heads": ("num_key_value_heads",),
        "wide": ("hidden_size", "n_embd", "d_model"),
        "wide inside": ("intermediate_size", "n_inner", "encoder_ffn_dim"),
        "tokens": ("vocab_size",),
    }
    found = ((_first(config, keys), label) for label, keys in names.items())
    return ", ".join(f"{value:,} {label}" for value, label in found if value is not None)


def _cache(config) -> str:
    layers, heads = (
        _first(config, ("num_hidden_layers", "n_layer", "decoder_layers")),
        _first(config, ("num_key_value_heads", "num_attention_heads", "n_head", "decoder_attention_heads")),
    )
    width = _first(config, ("hidden_size", "n_embd", "d_model"))
    query_heads = _first(config, ("num_attention_heads", "n_head", "decoder_attention_heads"))
    size = getattr(config, "head_dim", None) or width // query_heads
    return f"{2 * 4 * layers * heads * size / 1024:,.1f} KiB"


def _first(config, names: tuple[str, ...]):
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)
