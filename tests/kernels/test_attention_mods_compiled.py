"""What is compiled of score_mod and mask_mod: of which callables, when anew, for how long, once for all processes."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
from compiled_mods import by_element, modified, random_scores
from minilm_kernels.attention.mods import ScoreMod, catalogue, compiled


def test_arrays_are_read_in_place():
    slopes, cap = np.ones(3, np.float32), np.array(2.0)
    function = lambda score, b, h, q, k: cap * np.tanh(score / cap) + slopes[h]
    scores = random_scores()
    before = modified(scores, function)
    found = compiled(function, shape=scores.shape)
    slopes[:], cap[...] = 5, 3
    assert compiled(function, shape=scores.shape) is found
    after = modified(scores, function)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, by_element(function, scores), rtol=1e-5, atol=1e-5)


def test_a_changed_number_is_seen():
    n = 3

    def mask(b, h, q, k):
        return k < n

    scores = random_scores((1, 1, 1, 12))
    assert np.isfinite(modified(scores, mask_mod=mask)).sum() == 3
    n = 5
    assert np.isfinite(modified(scores, mask_mod=mask)).sum() == 5
    limits = [7]
    mask = lambda b, h, q, k: k < limits[0]
    assert np.isfinite(modified(scores, mask_mod=mask)).sum() == 7
    limits[0] = 9
    assert np.isfinite(modified(scores, mask_mod=mask)).sum() == 9


class _Rule:
    def __init__(self, factor):
        self.factor, self.bias = factor, np.arange(29, dtype=np.float32)

    def __call__(self, score, b, h, q, k):
        return self.method(score, b, h, q, k)

    def method(self, score, b, h, q, k):
        return self.factor * score + self.bias[k]


def _partial(slopes, score, b, h, q, k, *, shift):
    return score + slopes[h] + shift


def test_all_that_is_called_like_a_function():
    scores = random_scores()
    rule, two = _Rule(2), (lambda score, b, h, q, k: score + 1, lambda score, b, h, q, k: score + 2)
    partial = functools.partial(_partial, np.array([1.0, 2, 3]), shift=np.float32(0.5))
    for function in (rule, rule.method, partial, *two, ScoreMod(two[1])):
        np.testing.assert_allclose(modified(scores, function), by_element(function, scores), rtol=1e-5, atol=1e-5)


def test_what_is_compiled_is_freed_with_its_function():
    table = np.zeros((1, 29), np.float32)
    function = catalogue.relative_bias(table)
    compiled(function, shape=(1, 1, 29, 29))
    alive = weakref.ref(table)
    del function, table
    gc.collect()
    assert alive() is None


_PROGRAM = """
import sys
from minilm_kernels.attention.mods import catalogue, compiled
from minilm_kernels.attention.mods.modules import folder, module_of
found = compiled(catalogue.soft_cap(9.5), catalogue.causal(), shape=(1, 1, 64, 64))
assert found.modify_address and found.gradient_address
kernels = module_of(found.source).modify, module_of(found.gradient_source).modify_gradient
print(sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
print(sorted(path.name for path in folder().iterdir() if path.suffix == ".py"))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    def run():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}

    (hits, modules), files = run()
    assert hits == "0"
    assert len(eval(modules)) == 2
    assert len([path for path in files if "minilm_mod_" in path.name]) == 2
    assert run() == (["2", modules], files)


def test_two_processes_at_once(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", _PROGRAM], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))
