"""Llama and Qwen2 from GGUF files, their weights kept in blocks or made float32."""

from __future__ import annotations

import os
from functools import partial

import minilm_kernels as kernels
import numpy as np
from minilm_kernels.block_formats import BLOCK_BYTES

from minilm import nn
from minilm.checkpoint.gguf import GGUFTensor, read_gguf

from .llama import Llama, Qwen2
from .llama_config import LlamaConfig, Qwen2Config
from .pretrained import naming, room_for
from .rope import rope_frequencies

__all__ = ["build_gguf", "load_gguf"]

_FAMILIES = {"llama": (Llama, LlamaConfig), "qwen2": (Qwen2, Qwen2Config)}
# llama.cpp's names of a layer's parts, and transformers'.
_PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
# What changes the numbers in llama.cpp and not here, and the values at which it changes nothing.
_REFUSED = {
    "rope.scale_linear": 1, "rope.scaling.alpha": 0, "rope.scaling.attn_factor": 1, "rope.scaling.yarn_ext_factor": 1,
    "rope.scaling.yarn_attn_factor": 1, "rope.scaling.yarn_log_multiplier": 0, "attention.scale": 0,
    "attention.clamp_kqv": 0, "attention.max_alibi_bias": 0,
}  # fmt: skip
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_gguf(path: str | os.PathLike, weights: str = "keep") -> Llama:
    """The model in a GGUF file, in eval mode.

    With `weights` "keep" what the file holds as Q8_0, Q4_0 or Q4_1 stays so, as views of the file, and runs on the
    quantised products; "fp32" makes everything float32, for training and saving. Other formats, the K-quants too,
    become float32 in both. Raises what `read_gguf` does, ValueError for another architecture, KeyError or ValueError,
    every name listed, for tensors that do not fit.
    """
    return build_gguf(*read_gguf(path), weights, path)


def build_gguf(metadata: dict, tensors: dict[str, GGUFTensor], weights: str, path: str | os.PathLike) -> Llama:
    """As `load_gguf`, of what `read_gguf` returned for `path`, which errors name."""
    if weights not in ("keep", "fp32"):
        raise ValueError(f"weights is 'keep' (quantised ones stay so) or 'fp32', not {weights!r}")
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise ValueError(f"{path} holds a model of the architecture {kind!r}; there are: {', '.join(_FAMILIES)}")
    family, _ = _FAMILIES[kind]
    with naming(path):
        config = _config(kind, metadata, tensors, path)
    own = {_own_name(name): tensor for name, tensor in tensors.items() if name != "rope_freqs.weight"}
    if kind == "llama":
        for name in own:
            part = name.rpartition(".")[0].rpartition(".")[2]
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(part)
            if heads is not None:
                own[name] = _halves(own[name], heads)
    with naming(path), nn.init.left_out(room_for(tensors.values())):
        model = family(config)
    kept = {name: t for name, t in own.items() if weights == "keep" and t.format in BLOCK_BYTES and len(t.shape) == 2}
    _check(model, own, path)
    for name, tensor in kept.items():
        _keep(model, name.removesuffix(".weight"), tensor)
    for name, tensor in own.items():
        if name not in kept:  # one at a time, so that no second copy of the model is ever held
            model.load_state_dict({name: _numbers(tensor)}, strict=False)
    return model.eval()


def _config(kind: str, metadata: dict, tensors: dict, path) -> LlamaConfig:
    def value(key: str, *default):
        found = metadata.get(f"{kind}.{key}", *default)
        if found is None and not default:
            raise ValueError(f"{path} lacks {kind}.{key}, which says how large the model is")
        return found

    heads, width = value("attention.head_count"), value("embedding_length")
    table = tensors.get("token_embd.weight")
    if table is None:
        raise ValueError(f"{path} has no tensor token_embd.weight")
    sizes = {
        "vocab_size": table.shape[0],
        "hidden_size": width,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", None) or value("rope.dimension_count", None),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }
    bias = {"attention_bias": "blk.0.attn_q.bias" in tensors}
    config = _FAMILIES[kind][1].from_dict({**sizes, **bias, "rope_parameters": _rope(value, path)})
    for key, neutral in {**_REFUSED, "rope.dimension_count": config.head_dim}.items():
        if (found := value(key, None)) not in (None, neutral):
            raise ValueError(f"{path} has {kind}.{key} = {found!r}; only {neutral} is supported")
    if "rope_freqs.weight" in tensors:
        config.rope_parameters = _llama3(config, _numbers(tensors["rope_freqs.weight"]), path)
    return config


def _rope(value, path) -> dict:
    kind = value("rope.scaling.type", "none")
    rope = {"rope_theta": value("rope.freq_base", 10000.0)}
    if kind == "none":
        return rope
    if kind not in ("linear", "yarn"):
        raise ValueError(f"{path} has rotary scaling of the type {kind!r}; there are: none, linear, yarn")
    rope |= {"rope_type": kind, "factor": value("rope.scaling.factor")}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = value("rope.scaling.original_context_length")
        rope |= {name: value(f"rope.scaling.yarn_{name}", None) for name in ("beta_fast", "beta_slow")}
    return rope


def _llama3(config: LlamaConfig, divisors: np.ndarray, path) -> dict:
    """Llama 3's scaling, of which the file holds only what each frequency is divided by."""
    base = config.rope_parameters["rope_theta"]
    plain, _ = rope_frequencies({"rope_type": "default", "rope_theta": base}, config.head_dim, 1, 1)
    rope = {
        "rope_type": "llama3", "rope_theta": base, "factor": float(divisors.max()), "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    if not np.allclose(plain / rope_frequencies(rope, config.head_dim, 1, 1)[0], divisors, rtol=1e-3):
        raise ValueError(f"{path} scales rotary frequencies by a table other than Llama 3's; that is not supported")
    return rope


def _own_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.{end}"
    _, _, rest = stem.partition("blk.")
    layer, _, part = rest.partition(".")
    return f"model.layers.{layer}.{_PARTS[part]}.{end}" if part in _PARTS else name


def _halves(tensor: GGUFTensor, heads: int) -> GGUFTensor:
    """Rows of q or k in transformers' order, where llama.cpp has the two of a rotated pair side by side."""
    rows, *rest = tensor.data.shape
    if rows % (2 * heads):
        return tensor  # of another shape than the config says, which is found when the model takes it
    pairs = tensor.data.reshape(heads, rows // heads // 2, 2, *rest)
    return GGUFTensor(tensor.format, tensor.shape, np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, *rest))


def _check(model: Llama, own: dict[str, GGUFTensor], path) -> None:
    known = dict(model.named_parameters())
    missing, unexpected = sorted(known.keys() - own.keys()), sorted(own.keys() - known.keys())
    if missing or unexpected:
        raise KeyError(f"{path} does not fit its own description: missing {missing}, unexpected {unexpected}")
    odd = [f"{n} is {own[n].shape}, expected {p.shape}" for n, p in known.items() if own[n].shape != p.shape]
    if odd:
        raise ValueError(f"{path} does not fit its own description: {'; '.join(odd)}")


def _keep(model: Llama, name: str, tensor: GGUFTensor) -> None:
    """Puts a layer whose weight stays in blocks in the place of the one called `name`."""
    place, _, last = name.rpartition(".")
    parent = model
    for part in place.split(".") if place else ():
        parent = getattr(parent, part)
    old = getattr(parent, last)
    make = nn.QuantizedEmbedding if isinstance(old, nn.Embedding) else partial(nn.QuantizedLinear, bias=old.bias)
    setattr(parent, last, make(tensor.data, tensor.format))


def _numbers(tensor: GGUFTensor) -> np.ndarray:
    """The numbers of a tensor, those of blocks in float32."""
    if tensor.is_plain:
        return tensor.data
    if tensor.format in BLOCK_BYTES:
        return kernels.dequantize(tensor.data, format=tensor.format)
    try:
        import gguf
    except ImportError:
        raise ImportError(
            f"the file holds weights as {tensor.format}, which the package gguf dequantises: pip install 'minilm[gguf]'"
        ) from None
    try:
        return gguf.dequantize(tensor.data, gguf.GGMLQuantizationType[tensor.format])
    except NotImplementedError:
        raise ValueError(f"the package gguf can't dequantise {tensor.format}, which the file holds") from None
