"""What a model, or a config, is made of: something else is refused with the call that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm import models
from minilm.generation import GenerationConfig
from minilm.models import Config, GPT2Config, PretrainedModel

CLASSES = [getattr(models, name) for name in models.__all__ if isinstance(getattr(models, name), type)]
MODELS = [kind for kind in CLASSES if issubclass(kind, PretrainedModel) and hasattr(kind, "config_class")]
CONFIGS = [kind for kind in CLASSES if issubclass(kind, Config) and kind is not Config]


def test_there_are_such():
    assert len(MODELS) >= 15
    assert {kind.config_class for kind in MODELS} == set(CONFIGS)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_a_model_of_what_is_no_config(kind):
    name, config = kind.__name__, kind.config_class.__name__
    other = next(other for other in CONFIGS if not issubclass(other, kind.config_class))
    for wrong, message in (
        ({"vocab_size": 9}, rf"not of a dict; {config}\(\*\*values\)"),
        ("folder", rf"not of a str; {name}\.from_pretrained\('folder'\)"),
        (Path("folder"), rf"Path; {name}\.from_pretrained\('folder'\)"),
        (other(), f"not of a {other.__name__}; "),
        (kind.config_class, rf"not of the class {config}; {config}\(\)"),
        (None, f"not of a NoneType; {config}"),
    ):
        with pytest.raises(TypeError, match=f"^{name} is made of a {config}, .*{message}"):
            kind(wrong)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_config_of_what_is_no_number(kind):
    for wrong, message in (
        ({"hidden_size": 9}, rf", a dict: a dict's keys are fields as {kind.__name__}\(\*\*values\)"),
        ("9", "'9', a str"),
        (9.0, "9.0, a float"),
    ):
        with pytest.raises(TypeError, match=f"vocab_size of a {kind.__name__} is an integer; got .*{message}"):
            kind(wrong)


def test_a_config_of_ones_own_is_checked_as_well():
    class Mine(PretrainedModel):
        config_class = GPT2Config

        def __init__(self, config):
            self.config = config

    assert Mine(GPT2Config()).config.n_embd == 768
    with pytest.raises(TypeError, match="Mine is made of a GPT2Config, not of a dict"):
        Mine({})


def test_options_of_generation_in_a_dict():
    with pytest.raises(TypeError, match=r"num_beams is a dict; if it holds options, give them by name: \*\*options"):
        GenerationConfig({"max_new_tokens": 3})
