"""Chat templates: as transformers renders them, and a hostile one does nothing but fail."""

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tokenization import ChatTemplateError, Tokenizer

pytest.importorskip("jinja2")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ bos_token }}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LONG = """{%- set ns = namespace(system='', count=0) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = message.content %}
        {%- continue %}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if loop.index0 > 4 %}{% break %}{% endif %}
    {%- if message.tool_calls is defined %}
        {{- message.tool_calls | tojson(indent=2) }}
    {%- elif message.content is string %}
        {{- message.role.upper() ~ ': ' ~ message.content ~ ';' }}
    {%- else %}
        {%- for part in message.content %}{{ part.text | default('-') }}{% if not loop.last %}+{% endif %}{% endfor %}
    {%- endif %}
{%- endfor %}
{%- if tools %}{{ tools | map(attribute='name') | join(', ') }}{{ tools | tojson }}{% endif %}
{%- macro say(text, times=2) %}{% for _ in range(times) %}{{ text }}{% endfor %}{% endmacro %}
{{- say('hé', times=3) }} {{ '%s is %d' | format('x', 3) }} {{ messages[::-1][0]['role'] }} {{ ns.system }}
{{- ns.count }}
{%- generation %}{{ ns.count }}{% endgeneration %}
{{- {'b': 1, 'a': '<é>'} | tojson }}{{ 'a-b-c'.split('-') | last }}{{ 'aXbX' | replace('X', 'yy') }}{{ [3, 1] | sort }}
{{- (messages | selectattr('role', 'equalto', 'user') | list | length) }}{{ extra | default('none') }}
"""
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  What is 日本? 😀 <b>&'\" "},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {"up": "日本", "n": 1.5}}]},
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}]},
]


def tokenizer_of(folder, template=None, **config):
    tokenizer = Tokenizer.byte(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.save(folder)
    if template is not None:
        config["chat_template"] = template
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_pretrained(folder)


BYTE = Tokenizer.byte(["<|im_start|>", "<|im_end|>"])


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize(
    ("template", "chat", "variables"),
    [
        (CHATML, CHAT[:2], {}),
        (CHATML, CHAT[1:2], {}),
        (LONG, CHAT, {}),
        (LONG, CHAT * 2, {"tools": [{"name": "look", "parameters": {}}, {"name": "é"}], "extra": 5}),
        ("{{ strftime_now('%Y') }}{{ dict(a=1)['a'] }}{{ dict.fromkeys('ab') }}", CHAT[:1], {}),
        (
            "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}",
            [{"role": "assistant", "reasoning": "hm"}],
            {},
        ),
        ("{% for m in messages recursive %}{{ m.role }}{% else %}none{% endfor %}{{ documents }}", CHAT, {}),
    ],
)
def test_rendered_as_transformers_does(tmp_path, template, chat, variables, prompt):
    transformers = pytest.importorskip("transformers")
    ours = tokenizer_of(tmp_path, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt, **variables)
    assert ours.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt, **variables) == expected
    ids = ours.apply_chat_template(chat, add_generation_prompt=prompt, **variables)
    expected = theirs.apply_chat_template(chat, add_generation_prompt=prompt, **variables)["input_ids"]
    assert ids.tolist() == expected


def test_special_tokens_of_a_template_are_tokens(tmp_path):
    ids = tokenizer_of(tmp_path, CHATML).apply_chat_template([{"role": "user", "content": "é"}]).tolist()
    assert (ids[0], ids.count(256), ids.count(257)) == (258, 2, 2)


def test_named_templates_and_files(tmp_path):
    named = [
        {"name": "default", "template": "d"},
        {"name": "tool_use", "template": "t"},
        {"name": "rag", "template": "r"},
    ]
    tokenizer = tokenizer_of(tmp_path, named)

    def said(**options):
        return tokenizer.apply_chat_template(CHAT[:1], tokenize=False, **options)

    assert (said(), said(tools=[]), said(chat_template="rag"), said(chat_template="{{ 1 }}")) == ("d", "t", "r", "1")
    (tmp_path / "chat_template.jinja").write_text("file")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert said() == "file"
    tokenizer.chat_templates = {"a": "x", "b": "y"}
    with pytest.raises(ChatTemplateError, match=r"has the chat templates \['a', 'b'\]: pass one"):
        said()
    tokenizer.chat_templates = {}
    with pytest.raises(ChatTemplateError, match="no chat template: it may not be a chat model's"):
        said()


def rendered(template, chat=CHAT, **variables):
    return BYTE.apply_chat_template(chat, tokenize=False, chat_template=template, **variables)


FORBIDDEN = "does what the sandbox forbids"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__ }}", FORBIDDEN),
        ("{{ messages.__class__ }}", FORBIDDEN),
        ("{{ raise_exception.__globals__ }}", FORBIDDEN),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", FORBIDDEN),
        ("{{ self.__init__.__globals__ }}", FORBIDDEN),
        ("{{ namespace.__init__ }}", FORBIDDEN),
        ("{{ ''|attr('__class__') }}", FORBIDDEN),
        ("{{ '{0.__class__}'.format(1) }}", FORBIDDEN),
        ("{{ ['__class__']|map('attr', '__class__')|list }}", FORBIDDEN),
        ("{% set x = namespace(__class__=1) %}", FORBIDDEN),
        ("{% set x = namespace() %}{% set x.__class__ = 1 %}", FORBIDDEN),
        ("{{ messages.append(1) }}", FORBIDDEN),
        ("{{ messages[0].update(a=1) }}", FORBIDDEN),
        ("{% for i in range(10**9) %}x{% endfor %}", "steps"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(100000) %}{% set x = range(100000)|list %}{% endfor %}", "steps"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion|steps"),
        ("{% for a in 'x'*9999 %}{% for b in 'x'*9999 %}{% endfor %}{% endfor %}", "steps"),
        ("{{ 'a' * 10**9 }}", "characters of text"),
        ("{{ ('a' * 1000000)|length * 99 * ['b' * 100000000, 'c' * 150000000]|length }}", "characters of text"),
        ("{{ 10 ** (10 ** 9) }}", "the number"),
        ("{{ 'a'.ljust(10**10) }}", "the number"),
        ("{{ 'a'|center(10**10) }}", "the number"),
        ("{{ [1]|batch(10**9, 0)|list }}", "the number"),
        ("{{ '%999999999d' % 1 }}", "enormous width"),
        ("{{ '%*d' % (999999999, 1) }}", "the number"),
        ("{{ '%999999999d'|format(1) }}", "enormous width"),
        ("{{ '{:999999999}'.format(1) }}", "enormous width"),
        ("{{ '{:{}}'.format(1, 999999999) }}", "the number"),
        ("{{ 1.5|round(10**9) }}", "the number"),
        ("{{ ['a']|first|indent(width=10**9) }}", "the number"),
        ("{{ {'a': [1]}|tojson(indent=10**9) }}", "the number"),
        ("{% set x = namespace(t='aaaa') %}{% for i in range(60) %}{% set x.t = x.t ~ x.t %}{% endfor %}", "of text"),
        ("{% set x = namespace(t='aaaa') %}{% for i in range(60) %}{% set x.t = x.t + x.t %}{% endfor %}", "of text"),
        (
            "{% set x = namespace(t='a') %}{% for i in range(60) %}"
            "{% set x.t %}{{ x.t }}{{ x.t }}{% endset %}{% endfor %}",
            "of text",
        ),
        (
            "{% set x = namespace(t='aa') %}{% for i in range(60) %}{% set x.t = [x.t]*2|join %}{% endfor %}",
            "of text|not take",
        ),
        (
            "{% set x = namespace(t='aa') %}{% for i in range(60) %}{% set x.t = [x.t, x.t]|join('') %}{% endfor %}",
            "of text",
        ),
        (
            "{% set x = namespace(t='aa') %}{% for i in range(60) %}{% set x.t = x.t|replace('a', 'aa') %}{% endfor %}",
            "of text",
        ),
        (
            "{% set x = namespace(t='aa') %}{% for i in range(60) %}{% set x.t = x.t.replace('a', 'aa') %}{% endfor %}",
            "of text",
        ),
        ("{% set x = namespace(t=['a']) %}{% for i in range(60) %}{% set x.t = x.t + x.t %}{% endfor %}", "of text"),
        ("{{ lipsum(100000) }}", "'lipsum' is undefined"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for x in messages %}", "line 1, is not valid jinja2"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ raise_exception('roles must alternate') }}", "does not take this conversation: roles must alternate"),
        ("{{ messages[0].content / 2 }}", "does not take this conversation"),
    ],
)
def test_a_hostile_or_wrong_template_is_an_error(template, says):
    started = time.perf_counter()
    with pytest.raises(ChatTemplateError, match=says):
        rendered(template)
    assert time.perf_counter() - started < 20


def test_a_template_changes_and_keeps_nothing():
    chat = [{"role": "user", "content": "x"}]
    template = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    assert [rendered(template, chat), rendered(template, chat)] == ["1", "1"]
    assert chat == [{"role": "user", "content": "x"}]
    many = [{"role": "user", "content": "word " * 2000}] * 500  # a million characters are no attack
    assert len(rendered(CHATML, many)) > 4_000_000
    numbers = "{{ 1700000000|string }}{{ '%d' % 1700000000 }}{{ '{}'.format(1700000000) }}{{ [1700000000]|tojson }}"
    assert rendered(numbers) == "1700000000" * 3 + "[1700000000]"


class Secret:
    def shred(self):
        raise AssertionError("called")


@pytest.mark.parametrize(
    ("chat", "variables", "error", "says"),
    [
        ([], {}, TypeError, "expected messages as a list"),
        ("hello", {}, TypeError, "expected messages as a list"),
        ({"role": "user"}, {}, TypeError, "expected messages as a list"),
        (["hello"], {}, TypeError, "a message is a mapping with 'role' and 'content', got 'hello'"),
        ([[CHAT[0]]], {}, TypeError, "a message is a mapping"),
        (CHAT, {"continue_final_message": True}, TypeError, "does not take continue_final_message"),
        (CHAT, {"return_tensors": "np"}, TypeError, "does not take return_tensors"),
        (CHAT, {"thing": Secret()}, ChatTemplateError, "got a Secret"),
        ([{"role": "user", "content": b"bytes"}], {}, ChatTemplateError, "got a bytes"),
    ],
)
def test_wrong_conversations_are_named(chat, variables, error, says):
    with pytest.raises(error, match=says):
        rendered("{{ messages }}", chat, **variables)


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="{}%-# .|'()[]~+*abmessages0_\n", max_size=60))
def test_any_template_renders_or_is_named(template):
    for text in (template, "{{ " + template + " }}", "{% " + template + " %}"):
        try:
            result = rendered(text)
        except ChatTemplateError as error:
            result = str(error)
        assert isinstance(result, str)


def test_jinja2_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'minilm\[chat\]'"):
        rendered("x")


def test_an_old_jinja2_is_refused(monkeypatch):
    import jinja2

    monkeypatch.setattr(jinja2, "__version__", "3.1.4")
    with pytest.raises(ImportError, match=r"jinja2 3\.1\.4 can be broken out of"):
        rendered("x")
