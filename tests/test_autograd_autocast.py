"""Mixed precision: what is cast, what comes back, and how near it is to float32."""

from __future__ import annotations

import minilm_kernels as kernels
import ml_dtypes
import numpy as np
import pytest
from minilm_kernels import half

import minilm
from minilm import backend, nn, ops
from minilm.autograd import Array, autocast, compute_in, get_autocast_dtype, op
from minilm.models import GPT2, GPT2Config

HALVES = ["bfloat16", "float16"]
EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
GPT = GPT2Config(
    vocab_size=61, n_positions=32, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
)


def _tensor(*shape, seed=0, **settings):
    return minilm.tensor(backend.Generator(seed).normal(shape), requires_grad=True, **settings)


@pytest.mark.parametrize("dtype", HALVES)
def test_products_are_low_and_the_rest_is_float32(dtype):
    x, w = _tensor(2, 3, 8), _tensor(8, 8)
    with autocast(dtype):
        y = ops.linear(x, w)
        heads = ops.split_heads(y, 2)
        assert {t.dtype.name for t in (y, x @ w, ops.einsum("btc,cd->btd", x, w), heads, y * 2.0)} == {dtype}
        assert ops.scaled_dot_product_attention(heads, heads, heads, causal=True).dtype.name == dtype
        assert ops.gelu(y, _tensor(8)).dtype.name == dtype  # the bias follows
        wide = ops.layer_norm(y, _tensor(8)), ops.rms_norm(y), ops.softmax(y), y.sum(), y.mean(), y.exp(), x + y
        loss = ops.cross_entropy(y, np.zeros((2, 3), np.int64))
        assert {t.dtype.name for t in (*wide, loss)} == {"float32"}
    assert get_autocast_dtype() is None
    assert ops.linear(x, w).dtype == np.float32
    loss.backward()
    assert x.grad.dtype == w.grad.dtype == np.float32


def test_a_weight_is_cast_once_until_it_changes():
    x, w = _tensor(2, 4), _tensor(4, 4)

    def cast(y):  # what the product kept as its weight
        return y._node.kept["weight"]

    with autocast("bfloat16"):
        first, second = ops.linear(x, w), ops.linear(x, w)
        assert cast(first) is cast(second)
        (first + second).sum().backward()
        expected, w.grad = w.grad.numpy(), None
        third = ops.linear(x, w)  # the tape behind the old copy is gone
        (third + ops.linear(x, w)).sum().backward()
        np.testing.assert_array_equal(w.grad.numpy(), expected)
        with minilm.no_grad():
            w.add_(1.0)
            changed = ops.linear(x, w)
        assert np.abs((changed - third).numpy().astype(np.float32)).max() > 0.1
        w.grad = None
        ops.linear(x, w).sum().backward()  # the copy made without a tape does not serve here
        assert w.grad is not None


def test_products_of_one_input_share_its_copy():
    x, weights = _tensor(3, 8), [_tensor(8, 8, seed=seed) for seed in (1, 2, 3)]
    apart = sum(minilm.grad(_half_product(x * 1.0, w).sum(), x)[0].numpy().astype(np.float64) for w in weights)
    with autocast("bfloat16"):
        y = x * 1.0
        with minilm.no_grad():
            ops.linear(y, weights[0])
        products = [ops.linear(y, w) for w in weights]
        copies = {product._node.edges[0][0] for product in products}
        assert len(copies) == 1  # and not the one that no gradient can flow through
        (shared,) = minilm.grad(sum(p.sum() for p in products), x)
        np.testing.assert_allclose(shared.numpy(), apart, rtol=0.02, atol=0.02)
        assert ops.linear(y, weights[0])._node.edges[0][0] not in copies  # whose way back is freed
        y.data[...] = 0
        y.bump_version()
        assert not ops.linear(y, weights[0]).numpy().any()
        assert ops.linear(x * 2.0, weights[0]).numpy().any()


def _half_product(x, w):
    with autocast("bfloat16"):
        return ops.linear(x, w)


def test_blocks_nest_and_decorate():
    x, w = _tensor(2, 4), _tensor(4, 4)
    with autocast("bfloat16"):
        with autocast(None):
            assert (x @ w).dtype == np.float32
        with autocast("float16"):
            assert (x @ w).dtype == np.float16
        assert get_autocast_dtype() == "bfloat16"
    assert autocast("float16")(lambda: x @ w)().dtype == np.float16
    assert (x @ w).dtype == np.float32


def test_what_is_left_alone():
    double, ids = _tensor(2, 4, dtype="float64"), np.array([1, 0])
    with autocast("bfloat16"):
        assert (double @ double.T).dtype == np.float64
        assert ops.embedding(ids, _tensor(3, 4)).dtype == np.float32
        arrays = np.ones((2, 2), np.float32)
        assert ops.matmul(arrays, arrays).dtype == np.float32  # no Tensor: not on any tape
        mixed = ops.matmul(arrays, minilm.tensor(arrays))
        assert mixed.dtype.name == "bfloat16"


def test_what_it_refuses():
    for wrong in ("float32", "half", "fp16", "bf16", "cuda", np.int16, 16):  # half: which of the two?
        with pytest.raises(ValueError, match=f"'bfloat16' or 'float16', or with None in float32; not in {wrong!r}"):
            autocast(wrong)
    with pytest.raises(ValueError, match="precision is 'half'; expected one of fp32, tf32, bf16, fp16"):
        compute_in("half").__enter__()
    with pytest.raises(ValueError, match="precision is 'low', 'float32', 'first' or None, not 'half'"):
        op(precision="half")(lambda x: x)


def test_operations_of_ones_own():
    @op(precision="low")
    def double(x: Array):
        return x + x

    x = _tensor(3)
    with autocast("float16"):
        assert double(x).dtype == np.float16


def test_the_backward_pass_inside_is_not_cast_again():
    x, w = _tensor(2, 4), _tensor(4, 4)
    with autocast("bfloat16"):
        loss = (ops.linear(x, w) ** 2).sum()
        (outside,) = minilm.grad(loss, w, retain_graph=True)
        (twice,) = minilm.grad(loss, w, create_graph=True)
    np.testing.assert_array_equal(outside.numpy(), twice.numpy())
    assert twice.requires_grad


@pytest.mark.parametrize("dtype", HALVES)
def test_loss_and_gradients_of_a_model_are_near_float32(dtype):
    ids = backend.Generator(1).integers(0, 61, (4, 25))
    found = {}
    for precision in (None, dtype):
        model = GPT2(GPT, backend.Generator(0))
        with autocast(precision):
            loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
        loss.backward()
        found[precision] = loss.item(), {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert abs(found[dtype][0] - found[None][0]) < 0.1 * EPS[dtype] * found[None][0]
    for name, exact in found[None][1].items():
        distance = np.linalg.norm(found[dtype][1][name] - exact) / np.linalg.norm(exact)
        assert 0 < distance < 4 * EPS[dtype], name


def test_loss_as_torch_autocast(torch, transformers, tmp_path):
    model = GPT2(GPT, backend.Generator(0)).eval()
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids = backend.Generator(1).integers(0, 61, (8, 33))
    with autocast("bfloat16"):
        ours = model(ids[:, :-1], targets=ids[:, 1:]).loss.item()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = theirs(torch.from_numpy(ids[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), torch.from_numpy(ids[:, 1:]).flatten())
    assert abs(ours - loss.item()) < 0.1 * EPS["bfloat16"] * ours


def test_text_is_generated_in_low_precision():
    model = GPT2(GPT, backend.Generator(0)).eval()
    with autocast("bfloat16"):
        cache = model.new_cache()
        with minilm.no_grad():
            model(np.array([[1, 2]]), cache=cache)
        assert model.generate(np.array([[1, 2, 3]]), 5).shape == (1, 8)
    assert cache._keys[0].dtype.name == "bfloat16"


def _inputs(operation, dtype):
    draw = [backend.Generator(i).normal((2, 2, 8, 16), dtype=dtype) for i in range(4)]
    if operation.startswith("attention"):
        return draw[:3], {"causal": True}
    if operation.startswith("rotary"):
        return [draw[0], *(t.astype(dtype) for t in ops.rotary_tables(8, 16))], {"interleaved": False}
    if operation.startswith("dropout"):
        return draw[:1], {"p": 0.25, "seed": 3}
    if operation.startswith("linear_cross_entropy"):
        return [draw[0].reshape(32, 16), draw[1][0].reshape(16, 16)[:7], np.arange(32) % 7], {"label_smoothing": 0.1}
    if operation.startswith("elementwise"):
        return draw[:1], {"function": "silu"}
    if "softmax" in operation:
        return draw[:1], {}
    if "norm" in operation:
        weights = [x[0, 0, 0] for x in draw[2 : 4 if "layer" in operation else 3]]
        return [*draw[: 2 if operation.startswith("add") else 1], *weights], {}
    if operation.startswith("cross_entropy"):
        return [draw[0].reshape(32, 16), np.arange(32) % 16], {"label_smoothing": 0.1}
    return (draw[:2], {}) if operation.startswith("swiglu") else ([draw[0], draw[1][0, 0, 0]], {"approximate": "tanh"})


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("operation", sorted(half.OPERATIONS - {"dropout_backward"}))
def test_half_precision_kernels_on_the_cpu_are_those_of_float32_rounded_once(operation, dtype):
    arrays, settings = _inputs(operation, dtype)
    if operation == "attention_backward":
        out, logsumexp = kernels.attention(*arrays, **settings)
        assert logsumexp.dtype == np.float32
        arrays = [backend.Generator(9).normal((2, 2, 8, 16), dtype=dtype), *arrays, out, logsumexp]
        settings["into"] = tuple(np.zeros_like(arrays[0]) for _ in range(3))
    elif operation.endswith("cross_entropy_backward"):
        _, logsumexp = getattr(kernels, operation.removesuffix("_backward"))(*arrays, **settings)
        g = backend.Generator(9).normal((32,), dtype="float32")
        arrays = [g, *arrays, logsumexp] if operation.startswith("cross") else [g, *arrays]
    elif "norm_backward" in operation:
        outputs = getattr(kernels, operation.removesuffix("_backward"))(*arrays, **settings)
        g = [backend.Generator(9 + i).normal((2, 2, 8, 16), dtype=dtype) for i in range(2)]
        weight = arrays[2 if operation.startswith("add") else 1]
        x = outputs[1:2] if operation.startswith("add") else arrays[:1]
        arrays = [*g[: 2 if operation.startswith("add") else 1], *x, weight]
        arrays += outputs[-2 if "layer" in operation else -1 :]
    elif operation.endswith("_backward"):
        g = backend.Generator(9).normal((2, 2, 8, 16), dtype=dtype)
        arrays = [g, *arrays[1:]] if operation == "rotary_backward" else [g, *arrays]
    function = getattr(kernels, operation)
    found = function(*arrays, **settings)
    if "into" in settings:
        settings["into"] = None
    wide = function(*(x if x.dtype.kind == "i" else x.astype(np.float32) for x in arrays), **settings)
    found, wide = (x if isinstance(x, tuple) else (x,) for x in (found, wide))
    for number, (mine, exact) in enumerate(zip(found, wide, strict=True)):
        if mine is None:
            assert exact is None
            continue
        assert mine.dtype == ("float32" if number in half.STATISTICS.get(operation, ()) else dtype)
        np.testing.assert_array_equal(mine, exact.astype(mine.dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_in_half_precision_do_not_stop_where_its_steps_are_larger_than_what_is_added(dtype):
    many, twos = 5000, minilm.tensor(np.ones((5000, 2)), dtype=dtype)

    def gradient(shape, function):
        x = minilm.tensor(np.zeros(shape), dtype=dtype, requires_grad=True)
        (found,) = minilm.grad(function(x), x, twos)
        return found.data.astype(np.float32)

    same = np.zeros(many, int)
    for shape, function in {
        "broadcast": ((2,), lambda x: x + twos),
        "broadcast along a length of one": ((1, 2), lambda x: ops.broadcast_to(x, (many, 2))),
        "a table": ((3, 2), lambda x: ops.embedding(same, x)),
        "indices": ((3, 2), lambda x: x[same, :]),
        "a norm's bias": ((2,), lambda x: ops.layer_norm(twos, None, x)),
    }.values():
        np.testing.assert_allclose(gradient(shape, function).reshape(-1)[:2], many, rtol=EPS[dtype])
    rows = ops.softmax(minilm.tensor(np.zeros((1, many)), dtype=dtype))
    np.testing.assert_allclose(rows.data.astype(np.float64), 1 / many, rtol=EPS[dtype])
    shifted = ops.layer_norm(minilm.tensor(np.arange(many)[None] % 2 + 1, dtype=dtype))
    np.testing.assert_allclose(abs(shifted.data.astype(np.float64)), 1, rtol=EPS[dtype])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["erf", "tanh", "silu", "gelu", "softplus"])
def test_half_precision_without_axes(name, dtype):
    x = minilm.tensor(0.5, dtype=dtype, requires_grad=True)
    wide = minilm.tensor(0.5, requires_grad=True)
    y, exact = getattr(ops, name)(x), getattr(ops, name)(wide)
    y.backward()
    exact.backward()
    assert y.dtype == x.grad.dtype == dtype
    assert abs(y.item() - exact.item()) <= EPS[dtype]
    assert abs(x.grad.item() - wide.grad.item()) <= 4 * EPS[dtype]


def test_a_whole_model_in_bfloat16_uses_them_too():
    layer = nn.MultiHeadAttention(16, 2, generator=backend.Generator(0)).to("bfloat16")
    x = minilm.tensor(backend.Generator(1).normal((1, 5, 16), dtype=ml_dtypes.bfloat16), requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.dtype.name == "bfloat16"
