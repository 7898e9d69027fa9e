"""Chat templates: a conversation to the text that a chat model was trained on, by a sandboxed jinja2.

Templates come with models, from anywhere: they see only plain data, reach no attribute that begins with an underscore,
change nothing, and have a budget of steps and of text. What goes wrong in one is a `ChatTemplateError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

__all__ = ["ChatTemplateError", "choose_template", "render_chat"]

_NOT_YET = {"continue_final_message", "return_assistant_tokens_mask", "return_dict", "return_tensors", "padding"}
_NOT_YET |= {"truncation", "max_length", "tokenizer_kwargs", "sanitize_control_tokens"}


class ChatTemplateError(ValueError):
    """A chat template that is missing, wrong, hostile, or does not take this conversation."""


def choose_template(templates: Mapping[str, str], asked: str | None, tools) -> str:
    """The template named `asked`, or `asked` itself, or the default one ("tool_use" if there are tools and it is)."""
    if asked is not None:
        return templates.get(asked, asked)
    if tools is not None and "tool_use" in templates:
        return templates["tool_use"]
    if "default" in templates:
        return templates["default"]
    if templates:
        raise ChatTemplateError(f"this tokenizer has the chat templates {sorted(templates)}: pass one as chat_template")
    raise ChatTemplateError(
        "this tokenizer has no chat template: it may not be a chat model's; pass chat_template=..., or put a "
        "chat_template.jinja beside its files"
    )


def render_chat(template: str, messages: Sequence[Mapping], variables: Mapping) -> str:
    """The text of a conversation; `variables` are what the template sees besides `messages`."""
    if isinstance(messages, Mapping | str) or not isinstance(messages, Sequence) or not messages:
        raise TypeError(f"expected messages as a list of {{'role': ..., 'content': ...}}, got {messages!r:.80}")
    if wrong := next((one for one in messages if not isinstance(one, Mapping)), None):
        raise TypeError(f"a message is a mapping with 'role' and 'content', got {wrong!r:.80}")
    if refused := _NOT_YET & variables.keys():
        raise TypeError(f"apply_chat_template does not take {sorted(refused)[0]}; encode its text to batch or cut it")
    # A None is a key that is not there: clients send content=None beside tool calls.
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    messages = [_with_reasoning(message) for message in messages]
    jinja2 = _jinja2()
    from minilm.tokenization.chat_sandbox import environment

    try:
        with environment.budget():
            return _compiled(template).render(messages=_plain(messages), **_plain(dict(variables)))
    except ChatTemplateError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise ChatTemplateError(f"the chat template, line {error.lineno}, is not valid jinja2: {error}") from error
    except jinja2.sandbox.SecurityError as error:
        raise ChatTemplateError(f"the chat template does what the sandbox forbids ({error}); don't trust it") from error
    except Exception as error:  # a template may fail in any way that Python can
        what = str(error) or type(error).__name__
        raise ChatTemplateError(f"the chat template does not take this conversation: {what}") from error


def _jinja2():
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as error:
        raise ImportError("chat templates need jinja2, which is not installed: pip install 'minilm[chat]'") from error
    if tuple(map(int, jinja2.__version__.split(".")[:3])) < (3, 1, 6):
        raise ImportError(
            f"chat templates come from anywhere, and jinja2 {jinja2.__version__} can be broken out of: "
            "pip install 'minilm[chat]' for 3.1.6 or newer"
        )
    return jinja2


@lru_cache(maxsize=16)
def _compiled(template: str):
    from minilm.tokenization.chat_sandbox import environment

    return environment.from_string(template)


def _with_reasoning(message: dict) -> dict:
    """What a model thought goes by several names, and each template reads one of them."""
    for name in ("reasoning_content", "thinking", "reasoning"):
        if name in message:
            return {"thinking": message[name], **message, "reasoning_content": message[name]}
    return message


def _plain(value):
    """Plain data alone: objects have methods that a sandbox knows nothing of."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # what an enumeration of texts holds
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain(value.item())
    raise ChatTemplateError(f"chat templates take text, numbers, lists and mappings; got a {type(value).__name__}")
