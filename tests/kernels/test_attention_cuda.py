"""Attention's tensor core kernels against the float64 reference, run by the emulator, and on a card if there is one."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels import attention, attention_backward
from minilm_kernels.attention import cuda
from minilm_kernels.attention.arguments import checked
from minilm_kernels.attention.cuda_tiles import HEAD_SIZES, backward_tiles, forward_tiles
from minilm_kernels.cuda import Program
from minilm_kernels.cuda.program import DeviceProperties

from minilm import backend

DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype(np.float16), "f32": np.dtype(np.float32)}
UNSET = {
    "causal": False, "window": None, "scale": None, "soft_cap": None, "bias": None, "alibi_slopes": None,
    "key_lengths": None, "cu_seqlens": None, "cu_seqlens_k": None, "dropout_p": 0.0, "seed": 0, "score_mod": None,
    "block_mask": None,
}  # fmt: skip


def _normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


EVERYTHING = {
    "soft_cap": 3.0, "alibi_slopes": np.array([0.1, 0.5], np.float32), "dropout_p": 0.25, "seed": 2**40 + 3,
    "key_lengths": np.array([97, 20]), "causal": True, "window": (60, None), "scale": -0.2,
}  # fmt: skip
# Lengths around tiles of 64 and 128. Dtypes, head sizes and such settings as dropout are compiled anew, and take the
# time; masks are not.
CASES = {
    "tails": ("bf16", (2, 4, 2, 130, 70, 64), {}),
    "causal": ("bf16", (1, 2, 1, 129, 257, 64), {"causal": True}),
    "rows that see nothing": ("bf16", (1, 2, 2, 150, 40, 64), {"causal": True}),
    "window": ("bf16", (1, 2, 1, 200, 260, 64), {"window": (40, 3)}),
    "key lengths": ("bf16", (3, 2, 1, 70, 150, 64), {"key_lengths": np.array([0, 77, 150])}),
    "packed": ("bf16", (1, 2, 1, 200, 200, 64), {"cu_seqlens": np.array([0, 1, 70, 70, 200]), "causal": True}),
    "packed apart": (
        "bf16",
        (1, 2, 2, 90, 160, 64),
        {"cu_seqlens": np.array([0, 30, 90]), "cu_seqlens_k": np.array([0, 0, 160]), "window": 50},
    ),
    "one query": ("bf16", (2, 4, 1, 1, 131, 64), {"causal": True}),
    "one key": ("bf16", (1, 2, 1, 65, 1, 64), {}),
    "no key": ("bf16", (1, 2, 1, 5, 0, 64), {}),
    "head size 32": ("f16", (1, 2, 2, 70, 90, 32), {"causal": True}),
    "head size 80": ("f16", (1, 1, 1, 70, 90, 80), {"causal": True}),
    "head size 128": ("f16", (1, 2, 1, 150, 140, 128), {"causal": True}),
    "head size 256": ("bf16", (1, 1, 1, 70, 90, 256), {"causal": True}),
    "soft cap": ("bf16", (1, 2, 1, 70, 140, 32), {"soft_cap": 2.0}),
    "dropout": ("bf16", (2, 2, 1, 70, 141, 32), {"dropout_p": 0.3, "seed": 2**40 + 5}),
    "everything": ("bf16", (2, 2, 1, 70, 97, 32), EVERYTHING | {"bias": _normal(2, 1, 70, 97)}),
    "float32": ("f32", (2, 4, 2, 70, 130, 64), {"causal": True}),
    "float32, odd": ("f32", (1, 2, 1, 33, 40, 17), {}),
    "float32, wide": ("f32", (1, 1, 1, 40, 50, 256), {"causal": True}),
    "float32, everything": ("f32", (2, 2, 1, 70, 97, 32), EVERYTHING | {"bias": _normal(2, 2, 70, 97)}),
}


def _in(dtype, settings):
    floating = {name: settings[name].astype(dtype) for name in ("bias", "alibi_slopes") if name in settings}
    return settings | floating


def _drawn(dtype, sizes, seed=0):
    """g, q, k and v as a projection leaves them: (B, T, H, D), the first two axes swapped by the caller."""
    B, H, Hk, T, S, D = sizes
    random = np.random.default_rng(seed)
    shapes = (B, T, H, D), (B, T, H, D), (B, S, Hk, D), (B, S, Hk, D)
    return [random.standard_normal(shape, dtype=np.float32).astype(DTYPES[dtype]) for shape in shapes]


def _passes(g, q, k, v, run=attention, run_backward=attention_backward, **settings):
    """out, logsumexp, dq, dk, dv and, where there is a bias, its gradient."""
    out, logsumexp = run(q, k, v, **settings)
    gradients = run_backward(g, q, k, v, out, logsumexp, bias_gradient="bias" in settings, **settings)
    return out, logsumexp, *gradients


@cache
def _expected(name):
    """The exact results, and the errors of the plain composition; for bfloat16, 8 times as coarse, float16's by 8."""
    dtype, sizes, settings = CASES[name]
    arrays = [x.swapaxes(1, 2) for x in _drawn(dtype, sizes)]
    settings = _in(DTYPES[dtype], settings)
    wide = [x.astype(np.float64) for x in arrays]
    exact = _passes(*wide, implementation="reference", **_in(np.float64, settings))
    near = np.float32 if dtype == "f32" else np.float16
    plain = _passes(*(x.astype(near) for x in arrays), implementation="reference", **_in(near, settings))
    return exact, [_error(p, e) * (8 if dtype == "bf16" else 1) for p, e in zip(plain, exact)]


def _error(mine, exact):
    finite = np.isfinite(exact)
    return float(np.abs(mine.astype(np.float64)[finite] - exact[finite]).max(initial=0))


def _holds(name, results):
    dtype = CASES[name][0]
    exact, plain = _expected(name)
    eps = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    assert len(results) == len(exact)
    for what, mine, e, p in zip(("out", "logsumexp", "dq", "dk", "dv", "d_bias"), results, exact, plain):
        assert mine.shape == e.shape, what
        assert mine.dtype == (np.float32 if what == "logsumexp" else DTYPES[dtype]), what
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(e), err_msg=what)
        largest = np.abs(e[np.isfinite(e)]).max(initial=0)
        # In float32 what cancels in a gradient is as large as the gradient where nothing does: about 1.
        allowed = 2 * p + (eps * largest if dtype != "f32" else 4 * eps * max(1, largest))
        if what == "logsumexp":
            allowed = 2e-6 * max(1, largest)
        assert _error(mine, e) <= allowed, f"{what}: error {_error(mine, e):.3g}, the plain one's {p:.3g}"


@pytest.fixture
def on_the_host(emulated, cuda_host):
    """The implementation on NumPy arrays, each with a page behind it that must not be touched."""

    def run(name, stages=2, descending=False):
        dtype, sizes, settings = CASES[name]
        g, q, k, v = (cuda_host.guarded(x).swapaxes(1, 2) if x.size else x.swapaxes(1, 2) for x in _drawn(dtype, sizes))
        names = UNSET | _in(DTYPES[dtype], settings)
        found = checked(q, k, v, **names)

        def backward(*arrays, bias_gradient, **_):
            *gradients, d_bias = cuda.attention_backward(*arrays, **found, bias_gradient=bias_gradient, into=None)
            return (*gradients, d_bias) if bias_gradient else gradients

        with emulated(descending=descending):
            return _passes(g, q, k, v, lambda *arrays, **_: cuda.attention(*arrays, **found), backward, **settings)

    return run


@pytest.mark.parametrize("name", CASES)
def test_obeys_the_error_law(name, on_the_host):
    _holds(name, on_the_host(name, descending=len(name) % 2 == 1))


@pytest.mark.parametrize(("name", "tiles"), [("head size 128", (64, 64, 8, 1)), ("float32, wide", (16, 16, 4, 1))])
def test_cards_with_less_shared_memory_have_smaller_tiles(name, tiles, on_the_host, monkeypatch):
    card = DeviceProperties(89, 4, 99 * 1024)
    monkeypatch.setattr(cuda, "device_properties", lambda: card)
    dtype, sizes, _ = CASES[name]
    found = cuda._backward_sizes(sizes[-1], DTYPES[dtype].itemsize, card.shared_bytes, plain=True)[1]
    assert (found.m, found.n, found.warps, found.stages) == tiles
    _holds(name, on_the_host(name))


def test_gradients_go_into_parts_of_one_array(emulated):
    g, q, k, v = (x.swapaxes(1, 2) for x in _drawn("bf16", (2, 4, 4, 70, 70, 64)))
    settings = checked(q, k, v, **UNSET)
    whole = np.zeros((2, 70, 3, 4, 64), q.dtype)
    parts = [whole[:, :, i].swapaxes(1, 2) for i in range(3)]
    with emulated():
        arrays = g, q, k, v, *cuda.attention(q, k, v, **settings)
        *apart, _ = cuda.attention_backward(*arrays, **settings, bias_gradient=False, into=None)
        *together, _ = cuda.attention_backward(*arrays, **settings, bias_gradient=False, into=parts)
    for mine, part, expected in zip(together, parts, apart):
        assert mine is part
        np.testing.assert_array_equal(part, expected)


def test_dropout_reads_its_seed_where_it_lies(emulated):
    g, q, k, v = (x.swapaxes(1, 2) for x in _drawn("bf16", CASES["dropout"][1]))
    seed, found = np.array(0, np.uint64), []
    for number in (2**40 + 5, 2**63 + 1):
        seed[...] = number
        settings = checked(q, k, v, **UNSET | {"dropout_p": 0.3, "seed": number})
        passes = []
        for each in (number, seed):
            with emulated():
                arrays = g, q, k, v, *cuda.attention(q, k, v, **settings | {"seed": each})
                last = cuda.attention_backward(*arrays, **settings | {"seed": each}, bias_gradient=False, into=None)
            passes.append([x.astype(np.float32) for x in (*arrays[4:], *last[:3])])
        for by_value, by_address in zip(*passes):
            np.testing.assert_array_equal(by_address, by_value)
        found.append(passes[1])
    for index in (0, 2, 3, 4):  # not the logsumexp, which is of all weights
        assert (found[0][index] != found[1][index]).any()


def test_refuses_with_the_reason(emulated):
    q = np.zeros((1, 1, 4, 320), np.float16)
    settings = checked(q, q, q, **UNSET)
    assert "320" in cuda._limits(q, q, q, **settings)
    narrow = q[..., :64]
    with emulated(capability=75):
        assert "8.0" in cuda._limits(narrow, narrow, narrow, **settings)
    with emulated(capability=80):
        assert cuda._limits(narrow, narrow, narrow, **settings) is None
    assert "score_mod" in cuda._limits(narrow, narrow, narrow, **settings | {"score_mod": abs})


# Several tiles of keys to a query, and every way in which they are not the same ones for all queries.
ORDERED = {
    "shared heads": ((2, 4, 2, 200, 300, 32), {}),
    "causal": ((1, 2, 1, 400, 400, 32), {"causal": True}),
    "more keys": ((1, 2, 2, 200, 600, 32), {"causal": True}),
    "more queries": ((1, 2, 1, 500, 300, 32), {"causal": True}),
    "a window": ((1, 2, 2, 500, 600, 32), {"window": (90, 40)}),
    "lengths": ((3, 2, 1, 200, 500, 32), {"causal": True, "key_lengths": np.array([0, 170, 500])}),
    "sequences": ((1, 2, 1, 500, 500, 32), {"cu_seqlens": np.array([0, 1, 130, 130, 350, 500]), "window": (70, 70)}),
    "keys without queries": (
        (1, 2, 2, 150, 700, 32),
        {"cu_seqlens": np.array([0, 30, 30, 150]), "cu_seqlens_k": np.array([0, 10, 400, 700])},
    ),
    "sequences apart": (
        (1, 2, 2, 400, 700, 32),
        {"cu_seqlens": np.array([0, 60, 300, 400]), "cu_seqlens_k": np.array([0, 400, 400, 700]), "causal": True},
    ),
}


@pytest.mark.parametrize("name", ORDERED)
def test_dq_is_added_up_in_one_order(name, emulated, monkeypatch):
    """Whichever block index begins first, and however many heads are beside each other; and it is right."""
    sizes, settings = ORDERED[name]
    g, q, k, v = (x.swapaxes(1, 2) for x in _drawn("bf16", sizes))
    found, passes = checked(q, k, v, **UNSET | settings), []
    with emulated():
        out, logsumexp = cuda.attention(q, k, v, **found)
    for descending, beside in ((False, 1), (True, 3)):
        monkeypatch.setattr(cuda, "_beside", lambda *_, heads=beside: heads)
        with emulated(descending=descending):
            passes.append(
                cuda.attention_backward(g, q, k, v, out, logsumexp, **found, bias_gradient=False, into=None)[:3]
            )
    for one, other in zip(*passes):
        assert one.tobytes() == other.tobytes()
    wide = [x.astype(np.float64) for x in (g, q, k, v)]
    exact = _passes(*wide, implementation="reference", **settings)[2:]
    halves = _passes(*(x.astype(np.float16) for x in wide), implementation="reference", **settings)[2:]
    for mine, e, plain in zip(passes[0], exact, halves):
        eps = float(ml_dtypes.finfo(q.dtype).eps)
        assert _error(mine, e) <= 2 * 8 * _error(plain, e) + eps * np.abs(e).max()


def test_a_wait_for_a_block_that_has_not_begun_is_an_error(emulated, cuda_host, tmp_path):
    (tmp_path / "waiting.cu").write_text(
        '#include "common.cuh"\nextern "C" __global__ void waiting(int* turn) {\n'
        "    if (threadIdx.x == 0) wait_for(turn, int(blockIdx.x));\n"
        "    __syncthreads();\n    if (threadIdx.x == 0) add_relaxed(turn, 1);\n}"
    )
    kernel = Program(tmp_path / "beside.py", "waiting.cu").kernel("waiting")
    turn = np.zeros(1, np.int32)
    with emulated():
        kernel(3, 32, (turn,))
    assert turn[0] == 3
    with emulated(descending=True), pytest.raises(cuda_host.KernelError, match="to become 2 that is 3"):
        kernel(3, 32, (turn,))


@pytest.mark.parametrize(
    ("key_heads", "megabytes", "beside"),
    [(128, 2, 32), (16, 16, 16), (40, 4, 40), (50, 4, 25), (256, 0.5, 52), (1, 0, 1)],
)
def test_key_heads_beside_each_other(key_heads, megabytes, beside):
    assert cuda._beside(key_heads, int(megabytes * 2**20), 132) == beside


@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_fit_every_card_and_every_thread(itemsize):
    for head_size in HEAD_SIZES:
        for kilobytes in (99, 163, 227):
            for plain in (True, False):
                found = backward_tiles(head_size, itemsize, kilobytes * 1024, plain=plain)
                assert found.backward_bytes(head_size, itemsize) <= kilobytes * 1024
                assert found.backward_sums(head_size, plain=plain) <= 192
        tiles = forward_tiles(head_size, itemsize)
        ranges = -(-12 * tiles.m // 1024) * 1024  # of forward.cu, up to where the tiles begin
        assert ranges + tiles.forward_bytes(head_size, itemsize) <= 99 * 1024
    assert backward_tiles(128, 2, 227 * 1024).stages == 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_card(name):
    dtype, sizes, settings = CASES[name]
    arrays = [backend.to_device(x, "cuda").swapaxes(1, 2) for x in _drawn(dtype, sizes)]
    settings = {
        key: backend.to_device(value, "cuda") if isinstance(value, np.ndarray) else value
        for key, value in _in(DTYPES[dtype], settings).items()
    }
    results = _passes(*arrays, implementation="cuda", **settings)
    _holds(name, [backend.to_numpy(x) for x in results])
    again = _passes(*arrays, implementation="cuda", **settings)
    for one, other in zip(results, again):  # the same bits each time
        assert backend.to_numpy(one).tobytes() == backend.to_numpy(other).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ((2, 16, 4, 2048, 2048, 128), {"causal": True}),
        ((1, 4, 4, 4096, 4096, 128), {}),
        ((4, 8, 8, 1500, 2000, 64), {"window": (300, 200)}),
        ((1, 2, 2, 2048, 2048, 256), {"causal": True}),
    ],
    ids=str,
)
def test_many_blocks_take_their_turns_on_a_card(sizes, settings):
    """More blocks than a card runs at a time, ten times: the same bits, and right."""
    arrays = [backend.to_device(x, "cuda").swapaxes(1, 2) for x in _drawn("bf16", sizes)]
    first, *others = ([backend.to_numpy(x) for x in _passes(*arrays, **settings)[2:]] for _ in range(10))
    for other in others:
        assert [x.tobytes() for x in other] == [x.tobytes() for x in first]
    exact, plain = (
        [
            backend.to_numpy(x)
            for x in _passes(*(x.astype(dtype) for x in arrays), implementation="reference", **settings)[2:]
        ]
        for dtype in (np.float64, np.float16)
    )
    for mine, e, p in zip(first, exact, plain):
        assert _error(mine, e) <= 2 * 8 * _error(p, e) + float(ml_dtypes.finfo(mine.dtype).eps) * np.abs(e).max()
