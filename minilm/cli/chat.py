"""`minilm chat`: a conversation with a model that was trained on conversations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from .decoding import DecodingArguments, ShownText
from .errors import UsageError, as_usage_error
from .parsing import parse, place

__all__ = ["run"]

_HELP = "/reset forgets the conversation, /quit (or Ctrl-D) ends; Ctrl-C stops an answer"


@dataclass(kw_only=True)
class ChatArguments(DecodingArguments):
    """What `minilm chat` takes."""

    model: Annotated[str, place("MODEL")]  # a model's folder in Hugging Face form, a GGUF file, or a name on the hub
    system: str | None = None  # what the model is told first; None: what its template says
    weights: Literal["keep", "fp32"] | None = None  # of a GGUF file: quantised as they are, or made float32
    max_new_tokens: int = 512  # tokens of an answer, at most
    temperature: float = 0.7  # below 1: likelier tokens; above: more surprising ones
    top_p: float | None = 0.9  # sample from the fewest tokens that together have this probability
    repetition_penalty: float = 1.1  # above 1: tokens that are there already become less likely


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    options = parse(ChatArguments, arguments, "chat", f"Talk with a model. {_HELP}.", positional="required")
    options.check()

    from .loading import load_generator

    model, tokenizer = load_generator(options.model, options.device, options.weights)
    if not tokenizer.chat_templates:
        raise UsageError(f"{options.model} has no chat template; it continues texts: minilm generate {options.model}")
    assistant = options.load_assistant()
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  arrow keys and history for input()
        print(f"{type(model).__name__} of {model.n_parameters:,} parameters. {_HELP}.")
    return _converse(model, tokenizer, options, assistant)


def _converse(model, tokenizer, options: ChatArguments, assistant) -> int:
    from minilm.generation import PrefixCache

    # What was said is not read again, only what is new.
    settings = {"past_key_values": PrefixCache(), "assistant_model": assistant}
    first = [] if options.system is None else [{"role": "system", "content": options.system}]
    messages, turn = list(first), 0
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 0
        if text == "/quit":
            return 0
        if text == "/reset":
            messages = list(first)
            print("(forgotten)")
        elif text.startswith("/"):
            print(f"there is no command {text.split()[0]}. {_HELP}")
        elif text:
            messages.append({"role": "user", "content": text})
            answer = _answer(model, tokenizer, options, messages, {**options.options(tokenizer, turn), **settings})
            messages.append({"role": "assistant", "content": answer})
            turn += 1


def _answer(model, tokenizer, options: ChatArguments, messages: list[dict], settings: dict) -> str:
    """The model's answer, shown as it comes; oldest exchanges are dropped where the conversation becomes too long."""
    from minilm.tokenization import end_tokens

    room = model.max_length - min(options.max_new_tokens, model.max_length // 2)
    with as_usage_error():
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        while len(prompt) > room and len(messages) > 2:
            del messages[1 if messages[0]["role"] == "system" else 0]
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    if len(prompt) >= model.max_length:
        raise UsageError(f"{len(prompt)} tokens are more than the {model.max_length} that the model can look at")
    shown = ShownText(tokenizer, options.stop)
    with suppress(KeyboardInterrupt), as_usage_error():
        model.generate(
            prompt[None],
            min(options.max_new_tokens, model.max_length - len(prompt)),
            eos_token_id=end_tokens(model.config, tokenizer) or None,
            streamer=shown,
            **settings,
        )
    return shown.finish().strip()
