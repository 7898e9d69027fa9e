"""A step with nothing known to the host: as the plain one, whatever changes from step to step; how it is recorded."""

from __future__ import annotations

import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest
from devices import record_each_time
from minilm_kernels import device_numbers
from minilm_kernels.adamw import cuda as adamw_cuda
from minilm_kernels.global_norm import cuda as norm_cuda
from minilm_kernels.lamb import cuda as lamb_cuda
from minilm_kernels.recording import kept, recording

import minilm
from minilm import backend, ops
from minilm.backend import graph as graph_module
from minilm.data import BatchLoader
from minilm.models import GPT2, GPT2Config, RecurrentConfig, RecurrentLM
from minilm.optim import LAMB, SGD, Adam, AdamW, decay_groups, make_schedule
from minilm.training import TrainConfig, Trainer
from minilm.training.captured_step import CapturedStep

SHAPE = {"vocab_size": 17, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}


def make(
    captured: bool, *, cell=None, kind=AdamW, dropout=0.0, steps=12, precision="fp32", folder=None, device="cpu",
    **settings
):  # fmt: skip
    if cell is None:
        dropped = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
        model = GPT2(GPT2Config(**SHAPE, **dropped), backend.Generator(0)).to(device)
    else:
        config = RecurrentConfig(vocab_size=17, hidden_size=16, cell=cell, dropout=dropout)
        model = RecurrentLM(config, backend.Generator(0)).to(device)
    backend.manual_seed(5)
    batches = BatchLoader(np.arange(2000) % 17, batch_size=4, context=16, seed=0)
    config = TrainConfig(steps=steps, batch_size=4, context=16, cuda_graph=captured, **settings)
    groups = decay_groups(model.named_parameters(), 0.1)
    optimizer = kind(groups, lr=1e-2)
    schedule = make_schedule("cosine", steps=20, warmup=3)
    trainer = Trainer(model, optimizer, schedule, batches, config, precision=precision, folder=folder)
    if captured and device == "cpu":
        trainer.work = CapturedStep(model, optimizer, grad_clip=config.grad_clip, precision=precision)
    return trainer


def rows(trainer, count: int = 12) -> list:
    return [trainer.train_step() for _ in range(count)]


def assert_alike(mine, theirs, rtol=1e-5):
    for name in ("loss", "grad_norm", "lr"):
        np.testing.assert_allclose(
            [row[name] or 0.0 for row in mine], [row[name] or 0.0 for row in theirs], rtol=rtol, err_msg=name
        )


@pytest.mark.parametrize(
    "settings",
    [{}, {"dropout": 0.2}, {"accumulation": 3}, {"grad_clip": 0.0}, {"precision": "bf16"}, {"precision": "fp16"},
     {"kind": Adam}, {"kind": LAMB}],
    ids=str,
)  # fmt: skip
def test_as_the_plain_step(settings):
    found = []
    for captured in (False, True):  # one after the other: dropout draws from the default stream
        trainer = make(captured, **settings)
        found.append((trainer, rows(trainer), backend.default_generator.seed64()))
    (plain, expected, following), (captured, mine, theirs) = found
    assert_alike(mine, expected, 1e-5 if "precision" not in settings else 1e-2)
    assert theirs == following
    assert captured.work._graph is not None
    assert captured.optimizer.state_dict()["settings"]["steps"] == plain.optimizer.state_dict()["settings"]["steps"]
    assert all(p.grad is None for p in captured.parameters)


@pytest.mark.parametrize(
    ("precision", "dropout", "kind", "cell"),
    [("fp32", 0.0, AdamW, None), ("fp32", 0.0, LAMB, None), ("bf16", 0.0, AdamW, None), ("fp16", 0.0, AdamW, None),
     ("fp32", 0.2, AdamW, None), ("bf16", 0.2, AdamW, None), ("fp32", 0.2, AdamW, "lstm"), ("bf16", 0.0, AdamW, "gru")],
)  # fmt: skip
def test_as_the_plain_step_on_cupys_stand_in(cuda_standin, monkeypatch, precision, dropout, kind, cell):
    def norm(arrays):
        return cuda_standin.asarray(device_numbers.norm([x._host for x in arrays]))

    def step(*lists, lr, step, grad_scale, **fixed):
        numbers = {"lr": lr._host, "step": step._host, "grad_scale": grad_scale._host}
        kind.recordable_kernel(*([x._host for x in arrays] for arrays in lists), **numbers, **fixed)

    # The stand-in compiles no kernels.
    monkeypatch.setattr(norm_cuda, "norm_on_card", norm)
    monkeypatch.setattr(lamb_cuda if kind is LAMB else adamw_cuda, "step_on_card", step)
    record_each_time(monkeypatch)
    settings = {"device": "cuda", "precision": precision, "dropout": dropout, "kind": kind, "cell": cell}
    plain, captured = (make(captured, **settings) for captured in (False, True))
    expected, following = rows(plain, 5), backend.default_generator.seed64()
    backend.manual_seed(5)
    assert_alike(rows(captured, 5), expected, 1e-5 if precision == "fp32" else 1e-2)
    assert captured.work.refused is None
    assert captured.work.is_recorded
    assert backend.default_generator.seed64() == following


def test_dropout_differs_from_step_to_step():
    trainer = make(True, dropout=0.5)
    trainer.schedule.apply(trainer.optimizer, 0)
    batches = trainer.next_batches()
    trainer.optimizer.param_groups[0]["lr"] = trainer.optimizer.param_groups[1]["lr"] = 0.0  # the weights stay
    assert len({trainer.work(batches).loss for _ in range(6)}) == 6
    assert len(trainer.work._seeds) == 1 + 2 * 3  # of the embeddings, and of each layer's three


def test_an_overflow_changes_nothing_and_halves_the_scale():
    trainer = make(True, precision="fp16")
    rows(trainer, 3)
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    trainer.work.scaler.scale = 2.0**60
    row = trainer.train_step()
    assert (row["grad_norm"], row["loss_scale"]) == (None, 2.0**59)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert set(trainer.optimizer.state_dict()["settings"]["steps"].values()) == {3}
    trainer.work.scaler.scale = 2.0**10
    assert trainer.train_step()["grad_norm"] is not None


def test_other_shapes_are_taken_by_the_plain_step():
    trainer, twin = make(True), make(False)
    rows(trainer, 3)
    rows(twin, 3)
    short = [(inputs[:, :7], targets[:, :7]) for inputs, targets in trainer.next_batches()]
    uneven = [*trainer.next_batches(), *short]
    twin.batches.set_state(trainer.batches.state())
    for batches in (short, uneven):
        mine, theirs = (t.work(batches) for t in (trainer, twin))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert_alike(rows(trainer, 2), rows(twin, 2))
    assert trainer.work.refused is None


def test_loaded_state_and_other_settings_begin_a_new_graph(tmp_path):
    trainer = make(True, folder=tmp_path, dropout=0.1)
    rows(trainer, 4)
    trainer.save()
    first = trainer.work._graph
    expected = rows(trainer, 4)
    trainer.resume()
    assert_alike(rows(trainer, 4), expected)
    second = trainer.work._graph
    assert second is not first
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.5
    trainer.train_step()
    trainer.train_step()
    assert trainer.work._graph is not second


def test_an_embeddings_gradient_is_right_while_recording():
    ids = np.array([[3, 0, 3], [3, 1, 0]])
    found = []
    for block in (nullcontext(), recording()):
        table = minilm.tensor(np.zeros((5, 4), np.float32), requires_grad=True)
        weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        with block:
            (ops.embedding(ids, table) * weights).sum().backward()
        found.append(table.grad.numpy())
    np.testing.assert_array_equal(*found)
    assert found[0].any()


def test_what_can_not_be_recorded_is_taken_plainly():
    trainer = make(True)
    trainer.work = CapturedStep(trainer.model, SGD(trainer.model.named_parameters(), lr=0.1))
    losses = [trainer.work(trainer.next_batches()).loss for _ in range(3)]
    assert trainer.work.refused == "SGD's step is not one that reads its numbers from the device"
    assert np.isfinite(losses).all()
    drawing = make(True)
    forward, stream = type(drawing.model).forward, backend.Generator(0)

    class Noisy(type(drawing.model)):
        def forward(self, ids, **settings):
            stream.normal((1,))
            return forward(self, ids, **settings)

    drawing.model.__class__ = Noisy
    assert np.isfinite(rows(drawing, 2)[-1]["loss"])
    assert "random numbers were drawn on the host" in drawing.work.refused


def test_parameters_that_take_no_part_stay_as_they_are():
    trainer = make(True)
    spare = trainer.model.transformer.h[1].mlp.c_fc.bias
    spare.requires_grad = False
    before = spare.numpy().copy()
    rows(trainer, 5)
    np.testing.assert_array_equal(spare.numpy(), before)


def test_a_graph_keeps_its_buffers_and_shapes():
    seen = []
    graph = backend.Graph(lambda x, y: (seen.append(x), x + y)[1], "cpu")
    given = np.ones(3)
    assert graph(given, np.ones(3)).tolist() == [2, 2, 2]
    assert graph(np.full(3, 5.0), np.ones(3)).tolist() == [6, 6, 6]
    assert seen[0] is seen[1]
    assert seen[0] is not given
    assert given.tolist() == [1, 1, 1]
    assert not graph.fits(np.ones(4), np.ones(3))
    assert not graph.fits(np.ones(3), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"made for \[\(\(3,\), 'float64'\).* and got \[\(\(4,\)"):
        graph(np.ones(4), np.ones(3))


class _Stream:
    """What `Graph` asks of a stream, on the host: what runs while it records is not to count, so it is undone."""

    def __init__(self, log, **_):
        self.log = log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def record(self):
        return "event"

    def wait_event(self, event):
        assert event == "event"

    def begin_capture(self):
        self.log.append("begin")

    def end_capture(self):
        self.log.append("end")
        return types.SimpleNamespace(launch=lambda stream: self.log.append("launch"))


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy's streams and pools as `Graph` uses them, with a log of what was done."""
    log = []
    stream = _Stream(log)
    pool = types.SimpleNamespace(malloc=None, free_all_blocks=lambda: None)
    cuda = types.SimpleNamespace(
        Stream=lambda **_: _Stream(log),
        MemoryPool=lambda: pool,
        get_current_stream=lambda: stream,
        device=types.SimpleNamespace(get_cublas_handle=lambda: 0),
        using_allocator=lambda _: stream,
        set_pinned_memory_allocator=lambda f: (setattr(cupy, "lend", f), log.append(getattr(f, "__name__", f))),
    )
    pools = dict.fromkeys(("get_default_memory_pool", "get_default_pinned_memory_pool"), lambda: pool)
    cupy = types.SimpleNamespace(cuda=cuda, ndarray=(), **pools)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(graph_module, "recordable", lambda: None)
    monkeypatch.setattr(graph_module, "_copy", lambda x, device: _Buffer(x.shape, x.dtype))
    return log


class _Buffer(np.ndarray):
    def set(self, x, stream):
        self[...] = x


def test_it_is_recorded_after_the_warmup_and_then_launched(stand_in):
    calls = []
    graph = backend.Graph(lambda x: calls.append(kept("a table")) or x, "cuda", warmup=2)
    for _ in range(2):
        graph(np.ones(2))
    assert not graph.is_recorded
    assert not stand_in
    for _ in range(3):
        out = graph(np.full(2, 7.0))
    assert graph._needed == ["a table"]
    assert stand_in == ["lend", "begin", "end", None, "launch", "launch", "launch"]
    assert graph.is_recorded
    assert len(calls) == 3
    assert out.tolist() == [7, 7]


def test_what_fails_while_recording_is_told_and_run_as_ever(stand_in):
    def function(x):
        if stand_in and stand_in[-1] == "begin":
            sys.modules["cupy"].lend(8)
        return x + 1

    graph = backend.Graph(function, "cuda", warmup=0)
    for _ in range(3):
        assert graph(np.ones(2)).tolist() == [2, 2]
    assert not graph.is_recorded
    assert (
        graph.refused
        == "CaptureError: it copies an array from the host, whose memory would be another's at the next call"
    )
    assert stand_in == ["lend", "begin", "end", None]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulation": 2}, {"precision": "bf16"}, {"precision": "fp16"}, {"dropout": 0.2},
     {"dropout": 0.2, "accumulation": 2}, {"dropout": 0.2, "precision": "bf16"}, {"kind": LAMB},
     {"kind": LAMB, "precision": "bf16"}],
    ids=str,
)  # fmt: skip
def test_a_recorded_step_is_the_plain_one_on_a_gpu(settings):
    plain, captured = make(False, device="cuda", **settings), make(True, device="cuda", **settings)
    expected = rows(plain)
    backend.manual_seed(5)
    assert_alike(rows(captured), expected, 1e-4 if "precision" not in settings else 1e-2)
    assert captured.work.refused is None
    assert captured.work.is_recorded
