"""What the documentation shows runs: docstring examples, the README's code, the notebooks."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import pkgutil
import re
import runpy
from pathlib import Path

import minilm_kernels
import numpy as np
import pytest
from minilm_kernels import registry

import minilm

ROOT = Path(__file__).parent.parent


def _modules():
    for package in (minilm, minilm_kernels):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):  # that one runs the program
                yield module.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    output: list[str] = []
    for test in [*finder.find(module, globs={"minilm": minilm, "np": np, **vars(module)}), *_operations(module)]:
        runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def _operations(module):
    """Examples of `@op` functions, which doctest's finder takes for plain objects."""
    for name, value in vars(module).items():
        if isinstance(value, minilm.autograd.Operation) and value.__module__ == module.__name__ and value.__doc__:
            test = doctest.DocTestParser().get_doctest(value.__doc__, dict(vars(module)), name, module.__file__, 0)
            if test.examples:
                yield test


def _blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("index", range(len(_blocks("README.md"))))
def test_readme_code(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "block.py"  # a score_mod is compiled from its source, which exec would not have
    file.write_text(_blocks("README.md")[index], "utf-8")
    runpy.run_path(str(file))


def test_the_model_of_your_own(tmp_path, monkeypatch, capsys):
    """docs/model.md: its blocks are one program."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("\n".join(_blocks("docs/model.md")), "utf-8")
    runpy.run_path(str(tmp_path / "own.py"))
    row, *checks = capsys.readouterr().out.splitlines()
    assert "'step': 30" in row
    assert sum(line.startswith("ok ") for line in checks) == 9
    weights = minilm.checkpoint.load_weights(tmp_path / "own" / "model.safetensors")
    assert weights["h.0.qkv.weight"].shape == (96, 32)


def test_kernels_in_documents_have_the_reference_s_signature():
    text = "\n".join(_blocks("CONTRIBUTING.md"))
    found = re.findall(r'@register\("(\w+)".*\)\ndef \w+\((.*)\):', text)
    assert [name for name, _ in found] == ["gelu", "rms_norm"]
    for name, parameters in found:
        reference = inspect.signature(registry.implementations(name, "cpu")[-1].function).parameters.values()
        assert parameters.split(", ") == [p.name for p in reference if p.kind is p.POSITIONAL_OR_KEYWORD] + [
            "*", *(p.name for p in reference if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
        ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/lab.md", "docs/model.md", "benchmarks/results/README.md"],
)
def test_files_that_documents_name_are_there(document):
    """Links, and files in backquotes by any end of their path: `mods/graph.py` may stand below any folder."""
    text = (ROOT / document).read_text("utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []
    tops = ("kernels", "minilm", "tests", "docs", "benchmarks", "notebooks")
    files = ["/" + path.relative_to(ROOT).as_posix() for top in tops for path in (ROOT / top).rglob("*.*")]
    own = {"mine.py", "kernels/minilm_kernels/OPERATION/cpu.py"}  # the reader's
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    named = set(re.findall(r"[\w/-]+\.(?:py|cuh?|toml|sh|ipynb)\b", spans)) - own
    assert [name for name in sorted(named) if not any(file.endswith("/" + name) for file in files)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch, capsys):
    """Its cells run, and print what is stored with them, but for times and the last digits of rounding errors."""
    monkeypatch.chdir(tmp_path)
    import matplotlib

    matplotlib.use("Agg")
    notebook = json.loads(path.read_text("utf-8"))
    names: dict = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name} cell {number}", "exec"), names)
            stored = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            assert _without_measurements(capsys.readouterr().out) == _without_measurements(stored), f"cell {number}"


def _without_measurements(text: str) -> str:
    text = re.sub(r"\d+(\.\d+)?( ms|x|%| GFLOP/s| MiB)", r"N\2", text)
    text = re.sub(r"\d+\.\d{6,}", lambda number: f"{float(number[0]):.4f}", text)  # another processor's last digits
    return " ".join(re.sub(r"\d+(\.\d+)?e-\d+", "E", text).split())
