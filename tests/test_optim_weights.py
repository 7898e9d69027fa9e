"""Clipping of gradients, averages of weights, and which parameters decay."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm
from minilm.optim import (
    EMA,
    SGD,
    AdamW,
    clip_coefficient,
    clip_grad_norm,
    clip_grad_value,
    decay_groups,
    grad_norm,
    is_embedding,
)

SHAPES = ((3, 4), (), (5,), (0, 2), (70000,))


def with_gradients(dtype="float32", seed=0, scale=1.0):
    """Tensors and arrays of their gradients; the last tensor has none."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(rng.standard_normal(shape) * scale, dtype) for shape in SHAPES]
    tensors = [minilm.tensor(np.zeros(shape, dtype), requires_grad=True) for shape in (*SHAPES, (2,))]
    for tensor, array in zip(tensors, arrays):
        tensor.grad = minilm.tensor(array.copy())
    return tensors, arrays


def leaf(*values, dtype="float32"):
    return minilm.tensor(np.array(values, dtype), requires_grad=True)


# Clipping.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 20.0, 1e6])
def test_clip_grad_norm_is_torchs(dtype, max_norm):
    torch = pytest.importorskip("torch")
    mine, arrays = with_gradients(dtype)
    theirs = [torch.zeros(shape, requires_grad=True) for shape in SHAPES]
    for tensor, array in zip(theirs, arrays):
        tensor.grad = torch.tensor(array.astype("float64")).float() if dtype == "float32" else None
        if dtype == "float64":
            tensor.data = tensor.data.double()
            tensor.grad = torch.tensor(array)
    norm = clip_grad_norm(mine, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
    rtol = 1e-5 if dtype == "float32" else 1e-12
    assert norm == pytest.approx(expected, rel=rtol)
    for p, q in zip(mine, theirs):
        assert p.grad.dtype == dtype
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=rtol, atol=1e-30)
    assert mine[-1].grad is None


def test_norms_of_mixed_dtypes_and_of_nothing():
    a, b = leaf(0.0), leaf(0.0, dtype="float64")
    a.grad, b.grad = minilm.tensor(np.array([3.0], "float32")), minilm.tensor(np.array([4.0]))
    assert grad_norm([("a", a), ("b", b)]) == 5.0
    assert grad_norm(a) == 3.0
    assert grad_norm([leaf(1.0)]) == 0.0
    assert clip_grad_norm([leaf(1.0)], 1.0) == 0.0


def test_a_tied_weight_is_clipped_once():
    w = leaf(0.0, 0.0)
    w.grad = minilm.tensor([3.0, 4.0])
    assert clip_grad_norm([w, w], 1.0) == 5.0
    np.testing.assert_allclose(w.grad.numpy(), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(bad):
    torch = pytest.importorskip("torch")

    def make():
        w = leaf(0.0, 0.0)
        w.grad = minilm.tensor([bad, 1.0])
        return w

    w = make()
    with pytest.raises(RuntimeError, match=f"the norm of the gradients is {bad}.*detect_anomaly"):
        clip_grad_norm([w], 1.0, error_if_nonfinite=True)
    assert w.grad.tolist()[1] == 1.0
    clip_grad_norm([w], 1.0)
    oracle = torch.zeros(2, requires_grad=True)
    oracle.grad = torch.tensor([bad, 1.0])
    torch.nn.utils.clip_grad_norm_([oracle], 1.0)
    np.testing.assert_array_equal(w.grad.numpy(), oracle.grad.numpy())
    # With the coefficient the step itself refuses.
    w = make()
    with pytest.raises(ValueError, match="grad_scale is nan"):
        SGD([w], lr=0.1).step(grad_scale=clip_coefficient(grad_norm([w]), 1.0))
    assert w.tolist() == [0.0, 0.0]


@given(st.floats(0, 1e30), st.floats(0, 1e30))
def test_clip_coefficient_brings_the_norm_down(norm, max_norm):
    coefficient = clip_coefficient(norm, max_norm)
    assert 0 <= coefficient <= 1
    assert norm * coefficient <= max_norm * (1 + 1e-12)
    assert coefficient == 1 or norm > max_norm - 1e-6


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_clipping_in_the_step_is_clipping_before_it(kind):
    before, _ = with_gradients("float64", scale=3.0)
    within, _ = with_gradients("float64", scale=3.0)
    norm = clip_grad_norm(before, 1.0)
    kind(before, lr=0.1).step()
    kind(within, lr=0.1).step(grad_scale=clip_coefficient(norm, 1.0))
    for p, q in zip(before, within):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value])
def test_gradients_of_16_bits_stay_so(clip):
    w = minilm.tensor([3.0, -4.0], dtype="bfloat16", requires_grad=True)
    w.grad = minilm.tensor([3.0, -4.0], dtype="bfloat16")
    clip([w], 1.0)
    assert w.grad.dtype == "bfloat16"
    assert abs(w.grad.numpy().astype(float)).max() <= 1
    SGD([w], lr=0.5).step()  # which takes no others


def test_clip_grad_value_is_torchs():
    torch = pytest.importorskip("torch")
    mine, arrays = with_gradients()
    theirs = [torch.zeros(shape, requires_grad=True) for shape in SHAPES]
    for tensor, array in zip(theirs, arrays):
        tensor.grad = torch.tensor(array)
    clip_grad_value(mine, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(mine, theirs):
        assert p.grad.dtype == "float32"
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: clip_grad_norm([leaf(1.0)], -1), ValueError, "max_norm is -1.0; expected 0 or more"),
        (lambda: clip_grad_norm([leaf(1.0)], math.nan), ValueError, "max_norm is nan"),
        (lambda: clip_coefficient(1.0, -1), ValueError, "max_norm is -1.0"),
        (lambda: clip_coefficient(-1.0, 1), ValueError, "norm is -1.0"),
        (lambda: clip_grad_value([leaf(1.0)], -1), ValueError, "clip_value is -1.0"),
        (lambda: grad_norm([np.ones(2)]), TypeError, r"params\[0\] is a ndarray"),
    ],
)
def test_clipping_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Averages.


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_follows_its_formula(warmup):
    w, b = leaf(1.0, 2.0), leaf(0.5, dtype="float64")
    ema = EMA([("w", w), ("b", b)], decay=0.9, warmup=warmup)
    expected = w.numpy().astype("float64")
    for n in range(1, 30):
        w.data += np.float32(n)
        decay = min(0.9, (1 + n) / (10 + n)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * w.numpy()
        ema.update()
    assert ema.updates == 29
    with ema.swap():
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-6)
        assert (w.dtype, b.dtype) == ("float32", "float64")
        assert b.tolist() == [0.5]


def test_swap_gives_the_weights_back_whatever_happens():
    w = leaf(1.0)
    array = w.data
    ema = EMA([w], decay=0.5)
    w.data[:] = 3.0
    ema.update()

    def evaluate():
        with ema.swap():
            assert w.tolist() == [2.0]
            raise KeyError("evaluation failed")

    with pytest.raises(KeyError):
        evaluate()
    assert w.data is array
    assert w.tolist() == [3.0]
    for call in (ema.update, ema.state_dict, lambda: ema.load_state_dict({}), lambda: ema.swap().__enter__()):
        with (
            ema.swap(),
            pytest.raises(RuntimeError, match=r"inside swap\(\): weights and averages have changed places"),
        ):
            call()
    assert w.data is array


def test_swap_is_a_change_in_place_for_the_tape():
    w = leaf(1.0)
    ema = EMA([w])
    loss = (w * w).sum()
    with ema.swap(), pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_ema_goes_on_bit_for_bit():
    def grow(tensor, ema, steps):
        for step in range(steps):
            tensor.data *= np.float32(1.1 + step)
            ema.update()

    w = leaf(1.0, 2.0)
    ema = EMA([("w", w)], decay=0.99, warmup=True)
    grow(w, ema, 3)
    saved = ema.state_dict()
    saved = {"arrays": {"w": saved["arrays"]["w"].copy()}, "settings": dict(saved["settings"])}
    v = minilm.tensor(w.numpy().copy(), requires_grad=True)
    grow(w, ema, 4)
    other = EMA([("w", v)])
    other.load_state_dict(saved)
    grow(v, other, 4)
    assert np.array_equal(ema.state_dict()["arrays"]["w"], other.state_dict()["arrays"]["w"])
    assert ema.state_dict()["settings"] == other.state_dict()["settings"]


def test_ema_takes_a_module_and_counts_tied_weights_once():
    w = leaf(1.0)

    class Module:
        def named_parameters(self):
            return iter([("wte", w), ("head", w)])

    assert list(EMA(Module()).state_dict()["arrays"]) == ["wte"]


def ema_state(arrays=None, **about):
    arrays = {"w": np.ones(2, "float32")} if arrays is None else arrays
    return {"arrays": arrays, "settings": {"decay": 0.9, "warmup": False, "updates": 1} | about}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"w": np.ones(2)}, "what state_dict"),
        (ema_state({}), "average of 'w' is missing from the state"),
        (ema_state({"w": np.ones(2, "float32"), "x": np.ones(2)}), "average of 'x' is not in this EMA"),
        (ema_state({"w": np.ones(3, "float32")}), r"float32 \(3,\) in the state; expected float32 \(2,\)"),
        (ema_state({"w": np.ones(2)}), r"float64 \(2,\) in the state"),
        (ema_state(decay=2), "decay is 2.0"),
        (ema_state(updates=-1), "updates is -1"),
    ],
)
def test_a_state_of_other_weights_is_refused_whole(saved, message):
    w = leaf(1.0, 2.0)
    ema = EMA([("w", w)], decay=0.5)
    with pytest.raises(ValueError, match=message):
        ema.load_state_dict(saved)
    after = ema.state_dict()
    assert after["settings"] == {"decay": 0.5, "warmup": False, "updates": 0}
    assert after["arrays"]["w"].tolist() == [1.0, 2.0]


def test_ema_errors():
    with pytest.raises(ValueError, match="EMA got no parameters"):
        EMA([])
    with pytest.raises(ValueError, match=r"decay is 1.5; expected a number from 0 to 1"):
        EMA([leaf(1.0)], decay=1.5)
    with pytest.raises(ValueError, match="two parameters have one name"):
        EMA([("w", leaf(1.0)), ("w", leaf(1.0))])
    w = leaf(1.0)
    ema = EMA([("w", w)])
    w.data = w.data.astype("float64")
    with pytest.raises(ValueError, match=r"average of w is float32 .* make the EMA after converting"):
        ema.update()


# Groups.


def shaped(*shape):
    return minilm.tensor(np.zeros(shape, "float32"), requires_grad=True)


def names(groups):
    return {group["name"]: ([name for name, _ in group["params"]], group["weight_decay"]) for group in groups}


def test_biases_norms_and_embeddings_do_not_decay():
    wte = shaped(8, 4)
    model = {
        "transformer.wte.weight": wte,
        "transformer.wpe.weight": shaped(6, 4),
        "h.0.ln_1.weight": shaped(4),
        "h.0.attn.c_attn.weight": shaped(4, 12),
        "h.0.attn.c_attn.bias": shaped(12),
        "lm_head.weight": wte,
    }
    expected = {
        "decay": (["h.0.attn.c_attn.weight"], 0.1),
        "no_decay": (
            ["transformer.wte.weight", "transformer.wpe.weight", "h.0.ln_1.weight", "h.0.attn.c_attn.bias"],
            0.0,
        ),
    }
    assert names(decay_groups(model.items(), 0.1)) == expected
    # In whatever order a tied weight comes, it is an embedding.
    assert "lm_head.weight" in names(decay_groups(reversed(model.items()), 0.1))["no_decay"][0]
    gpt2 = names(decay_groups(model.items(), 0.1, decay_embeddings=True))
    assert gpt2["decay"][0] == ["transformer.wte.weight", "transformer.wpe.weight", "h.0.attn.c_attn.weight"]
    optimizer = AdamW(decay_groups(model.items(), 0.1), lr=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert names(decay_groups([("w", shaped(2, 2))], 0.1)) == {"decay": (["w"], 0.1)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wte", True),
        ("embed.weight", True),
        ("tok_emb.weight", True),
        ("token_embedding_table.weight", True),
        ("bert.embeddings.word_embeddings.weight", True),
        ("gpt_neox.embed_in.weight", True),
        ("embeddings.0.weight", True),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", True),
        ("pos_embedding", True),
        ("embed_out.weight", False),
        ("patch_embed.proj.weight", False),
        ("bert.embeddings.project.weight", False),
        ("member.weight", False),
        ("h.0.mlp.c_fc.weight", False),
        ("weight", False),
        ("0", False),
    ],
)
def test_embeddings_are_known_by_name(name, expected):
    assert is_embedding(name) is expected


def test_group_errors():
    with pytest.raises(TypeError, match=r"named_parameters\[1\] has no name"):
        decay_groups([("w", shaped(1)), shaped(1)], 0.1)
    with pytest.raises(ValueError, match=r"weight_decay is -0\.1"):
        decay_groups([("w", shaped(1))], -0.1)
    with pytest.raises(TypeError, match=r"named_parameters is a dict.*pass dict.items\(\)"):
        decay_groups({"w": shaped(1)}, 0.1)
