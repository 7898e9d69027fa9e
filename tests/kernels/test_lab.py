"""The parts of the kernel lab: the reference piece by piece, taking turns, memory, the words of a command line."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from minilm_kernels.bench import machine
from minilm_kernels.bench.choices import choose, option_values, parse_shapes, variants
from minilm_kernels.bench.command import main
from minilm_kernels.bench.errors import LabError
from minilm_kernels.bench.memory import bounded, peak_bytes
from minilm_kernels.bench.problem import Problem
from minilm_kernels.bench.timing import Timed, alternate
from minilm_kernels.bench.workload import workload


def test_blocks_of_the_reference_are_the_whole(monkeypatch):
    """Long contexts and large vocabularies are checked piece by piece; the pieces add up to the same."""
    modules = [import_module(f"minilm_kernels.{name}.workload") for name in ("attention", "cross_entropy")]
    of_attention, of_cross_entropy = modules
    for name, module, size, parameters in (
        ("attention", of_attention, "_SCORES", {"B": 2, "H": 4, "T": 21, "D": 8, "S": 30, "groups": 2}),
        ("attention", of_attention, "_SCORES", {"B": 1, "H": 2, "T": 30, "D": 8, "S": 21, "groups": 1}),
        ("cross_entropy", of_cross_entropy, "_BLOCK", {"N": 50, "V": 11, "label_smoothing": 0.1, "ignored": 0.3}),
    ):
        found = workload(name)
        more = {option: values[0] for option, values in found.options.items()}
        more |= {"scale": 0.4, "soft_cap": 3.0} if name == "attention" else {}
        for causal in (False, True) if name == "attention" else (None,):
            case = {**more, **parameters, **({} if causal is None else {"causal": causal})}
            for mode in found.passes():
                whole = Problem(found, mode, case, "float64").exact
                with monkeypatch.context() as context:
                    context.setattr(module, size, 100)
                    pieces = Problem(found, mode, case, "float64").exact
                for one, other in zip(whole, pieces, strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_takes_turns_and_keeps_to_the_budget():
    order = []

    class Clock:
        def warm_up(self, function):
            return 1.0

        def seconds(self, function, calls):
            order.append(function())
            return 1.0

    fast, slow = Timed(lambda: "fast"), Timed(lambda: "slow", budget=0.0)
    slower = Timed(lambda: "slower", budget=2.0)
    slower.expect(3.0)
    slow.spent = 1.0
    alternate([fast, slow, slower], 3, Clock())
    assert order == ["fast", "slow", "fast", "fast"]
    assert [len(contender.samples) for contender in (fast, slow, slower)] == [3, 1, 1]
    assert [len(contender.seconds) for contender in (fast, slow, slower)] == [3, 3, 3]
    assert slower.samples[0] == 3.0


def test_memory_of_a_call():
    assert 2**20 <= peak_bytes(lambda: np.ones(2**17)) < 2**22
    with bounded(), pytest.raises(MemoryError):
        np.ones(2**45, np.uint8)


def test_words_of_a_command_line():
    found = workload("attention")
    assert parse_shapes(found, "small; 1,1,8,8 ;1,1,8,8")[-1] == {"B": 1, "H": 1, "T": 8, "D": 8}
    assert len(parse_shapes(found, "small; 1,1,8,8 ;1,1,8,8")) == 3
    given = option_values(["--causal=true", "--scale", "0.5,none"], [found])
    assert given == {"causal": (True,), "scale": (0.5, None)}
    assert [one["scale"] for one in variants(found, given)] == [0.5, None]
    assert option_values(["--approximate", "none"], [workload("gelu")]) == {"approximate": ("none",)}
    assert choose("pass", "bwd, fwd", ("fwd", "bwd")) == ["bwd", "fwd"]
    with pytest.raises(LabError, match="no pass is named; there are: fwd, bwd"):
        choose("pass", ",", ("fwd", "bwd"))


def test_a_problem_that_the_reference_can_not_solve_leaves_the_others(monkeypatch, capsys, tmp_path):
    found, ceilings = workload("dropout"), machine.ceilings
    build = found.build

    def fails(draw, **sizes):
        if sizes["N"] == 3:
            raise RuntimeError("no such thing")
        return build(draw, **sizes)

    monkeypatch.setattr(found, "build", fails)
    monkeypatch.setattr(machine, "ceilings", lambda dtype: ceilings(dtype, n=64, count=2**12))
    path = tmp_path / "rows.csv"
    arguments = ["dropout", "--shapes", "3,8;4,8", "--peers", "none", "--rounds", "1", "--implementations", "reference"]
    assert main([*arguments, "--csv", str(path)]) == 1
    captured = capsys.readouterr()
    assert "NOT CHECKED: dropout forward, float32, 3,8: RuntimeError: no such thing" in captured.err
    assert "dropout forward, float32: N=4, C=8" in captured.out
    assert path.read_text(encoding="utf-8").count("dropout,reference") > 3
