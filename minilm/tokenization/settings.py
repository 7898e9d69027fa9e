"""What stands beside a vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json, templates."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from minilm.tokenization.models import tokenizers_library
from minilm.tokenization.special_tokens import SPECIAL_NAMES

__all__ = ["TokenizerSettings", "add_tokens", "read_json", "read_settings", "read_text"]

_NO_LIMIT = 10**9  # transformers writes 10**30 where there is no limit
_WITH_TOKEN_TYPES = ("Bert", "Electra", "MobileBert", "MPNet", "Albert", "ConvBert", "Funnel")


@dataclass
class TokenizerSettings:
    """All that a tokenizer is told besides its vocabulary; `TokenizerSettings()` is a tokenizer without any."""

    special_tokens: dict[str, str] = field(default_factory=dict)  # "bos" -> "<s>"
    added_tokens: list = field(default_factory=list)  # (id or None, AddedToken), in order of ids
    chat_templates: dict[str, str] = field(default_factory=dict)  # "default" -> the template
    clean_up: bool = False
    padding_side: str = "right"
    truncation_side: str = "right"
    max_length: int | None = None
    token_type_ids: bool = False
    tokenizer_class: str = ""
    config: dict = field(default_factory=dict)  # tokenizer_config.json as it stands


def read_settings(folder: Path) -> TokenizerSettings:
    """The settings of a folder; a file that is not there says nothing, one that can't be read is a ValueError."""
    path = folder / "tokenizer_config.json"
    config = read_json(path, dict) if path.is_file() else {}
    result = TokenizerSettings(config=config, chat_templates=_templates(folder, config))
    result.tokenizer_class = _class_name(folder, config)
    result.special_tokens, extra = _special_tokens(folder, config)
    result.added_tokens = [*_added_tokens(folder, config), *((None, token) for token in extra)]
    result.clean_up = _value(path, config, "clean_up_tokenization_spaces", bool, False)
    family = result.tokenizer_class
    for side in ("padding_side", "truncation_side"):
        default = "left" if side == "padding_side" and family.startswith("Llama") else "right"
        value = _value(path, config, side, str, default)
        if value not in ("left", "right"):
            raise ValueError(f"{path}: {side} is {value!r}; expected 'left' or 'right'")
        setattr(result, side, value)
    longest = _value(path, config, "model_max_length", (int, float), _NO_LIMIT)
    result.max_length = int(longest) if 0 < longest < _NO_LIMIT else None
    inputs = _value(path, config, "model_input_names", list, None)
    result.token_type_ids = "token_type_ids" in inputs if inputs else family.startswith(_WITH_TOKEN_TYPES)
    return result


def add_tokens(library, settings: TokenizerSettings, source) -> None:
    """Puts the named and the added tokens into `library` where they are not yet, as transformers does."""
    there = {token.content for token in library.get_added_tokens_decoder().values()}
    tokens = list(settings.added_tokens)
    told = there | {token.content for _, token in tokens}
    added_token = tokenizers_library().AddedToken
    for content in dict.fromkeys(settings.special_tokens.values()):
        if content not in told:
            tokens.append((None, added_token(content, special=True, normalized=False)))
    for index, token in tokens:
        if token.content not in there:
            add = library.add_special_tokens if token.special else library.add_tokens
            add([token])
        got = library.token_to_id(token.content)
        if index is not None and got != index:
            raise ValueError(
                f"{source}: the added token {token.content!r} is said to have id {index}, and the vocabulary gives it "
                f"{got}; the files don't belong together: take them all from one model"
            )


def read_json(path: Path, kind: type):
    """The JSON in a file; ValueError naming the file if it is none, or of another kind than `kind`."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); it may be cut short: fetch the file again") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; expected a {kind.__name__}: fetch it again")
    return value


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; ValueError naming the file if it is something else."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); fetch the file again") from error


def _value(path: Path, config: dict, key: str, kind, default):
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{path}: {key} is {value!r}, of type {type(value).__name__}; leave it out, or correct it")
    return value


def _class_name(folder: Path, config: dict) -> str:
    """The class that transformers would choose: the configured one, else by the model beside it."""
    name = config.get("tokenizer_class")
    if isinstance(name, str):
        return name.removesuffix("Fast")
    path = folder / "config.json"
    model_type = read_json(path, dict).get("model_type") if path.is_file() else None
    usual = {"bert": "Bert", "gpt2": "GPT2", "llama": "Llama", "mistral": "Llama", "t5": "T5", "marian": "Marian"}
    return f"{usual[model_type]}Tokenizer" if model_type in usual else ""


def _special_tokens(folder: Path, config: dict) -> tuple[dict[str, str], list]:
    """The named tokens (tokenizer_config.json has the last word), and those without a name."""
    path = folder / "special_tokens_map.json"
    named, extra = {}, []
    sources = [(folder / "tokenizer_config.json", config)]
    if path.is_file():
        sources.insert(0, (path, read_json(path, dict)))
    for source, values in sources:
        for name in SPECIAL_NAMES:
            value = values.get(f"{name}_token")
            if value is not None:
                named[name] = _added_token(source, value, special=True).content
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = values.get(key) or ()
            if isinstance(more, dict):  # named ones of a model's own: {"image_token": "<image>"}
                more = list(more.values())
            if not isinstance(more, list | tuple):
                raise ValueError(f"{source}: {key} is {more!r}; expected a list of tokens")
            extra += [_added_token(source, token, special=True) for token in more]
    return named, list({token.content: token for token in extra}.values())


def _added_tokens(folder: Path, config: dict) -> list:
    path = folder / "tokenizer_config.json"
    decoder = _value(path, config, "added_tokens_decoder", dict, {})
    if not decoder and (folder / "added_tokens.json").is_file():  # what older versions wrote: token -> id
        path = folder / "added_tokens.json"
        decoder = {index: {"content": token} for token, index in read_json(path, dict).items()}
    try:
        found = {int(index): token for index, token in decoder.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: an added token's id is not a number ({error}); fetch the file again") from error
    return [(index, _added_token(path, found[index])) for index in sorted(found)]


def _added_token(source: Path, value, special: bool = False):
    told = {"content": value} if isinstance(value, str) else value
    if not isinstance(told, dict) or not isinstance(told.get("content"), str) or not told["content"]:
        raise ValueError(f"{source}: {value!r} is not a token; expected text, or an object with a 'content' of text")
    flags = {name: bool(told[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in told}
    special = bool(told.get("special", special))
    flags.setdefault("normalized", not special)
    return tokenizers_library().AddedToken(told["content"], special=special, **flags)


def _templates(folder: Path, config: dict) -> dict[str, str]:
    path = folder / "tokenizer_config.json"
    templates = {}
    told = config.get("chat_template")
    if isinstance(told, str):
        templates["default"] = told
    elif isinstance(told, list) and all(isinstance(one, dict) for one in told):
        templates = {one.get("name"): one.get("template") for one in told}
    elif told is not None:
        raise ValueError(f"{path}: chat_template is a {type(told).__name__}; expected text, or a list of named ones")
    if not all(isinstance(text, str) for pair in templates.items() for text in pair):
        raise ValueError(f"{path}: each chat_template needs a 'name' and a 'template' of text")
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = read_text(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = read_text(file)
    return templates
