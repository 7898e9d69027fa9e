"""Attention: the fused kernel and the composition agree with each other, with torch and with finite differences."""

import inspect

import minilm_kernels
import numpy as np
import pytest
from devices import beside

import minilm
from minilm import ops
from minilm.backend import Generator
from minilm.ops import attention

attend = ops.scaled_dot_product_attention
MASK = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, False]])

# Query, key and value shapes, and settings.
SETTINGS = {
    "plain": ([(1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 2)], {}),
    "causal": ([(1, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2)], {"causal": True}),
    "causal, fewer queries": ([(1, 1, 2, 2), (1, 1, 4, 2), (1, 1, 4, 2)], {"causal": True}),
    "causal, more queries": ([(1, 1, 4, 2), (1, 1, 2, 2), (1, 1, 2, 2)], {"causal": True}),
    "scale": ([(1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2)], {"scale": 0.3}),
    "key_lengths": ([(2, 1, 2, 2), (2, 1, 3, 2), (2, 1, 3, 2)], {"key_lengths": np.array([2, 0])}),
    "key_lengths, causal": ([(2, 1, 3, 2), (2, 1, 3, 2), (2, 1, 3, 2)], {"key_lengths": [1, 3], "causal": True}),
    "grouped queries": ([(1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 2)], {}),
    "one key head": ([(1, 2, 2, 2), (1, 1, 3, 2), (1, 1, 3, 2)], {"causal": True}),
    "a boolean mask": ([(1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 2)], {"attn_mask": MASK}),
    "an additive mask": ([(1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2)], {"attn_mask": np.arange(12.0).reshape(3, 4) / 5}),
    "mask, causal and lengths": (
        [(1, 2, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2)],
        {"attn_mask": MASK, "causal": True, "key_lengths": [3]},
    ),
    "window": ([(1, 2, 5, 2), (1, 2, 5, 2), (1, 2, 5, 2)], {"window": 2, "causal": True}),
    "two-sided window": ([(1, 1, 3, 2), (1, 1, 5, 2), (1, 1, 5, 2)], {"window": (1, 0)}),
    "soft cap": ([(1, 2, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2)], {"soft_cap": 0.7, "causal": True}),
    "alibi": ([(2, 2, 3, 2), (2, 2, 4, 2), (2, 2, 4, 2)], {"alibi_slopes": np.array([0.5, 0.25])}),
    "cap, bias, alibi, window": (
        [(1, 2, 4, 2), (1, 2, 4, 2), (1, 2, 4, 2)],
        {"soft_cap": 2.0, "attn_mask": np.arange(16.0).reshape(4, 4) / 9, "alibi_slopes": [1.0, 0.1], "window": 3},
    ),
    "length 1": ([(1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)], {"causal": True}),
    "no queries": ([(1, 1, 0, 2), (1, 1, 3, 2), (1, 1, 3, 2)], {}),
    "no keys": ([(1, 1, 2, 2), (1, 1, 0, 2), (1, 1, 0, 2)], {}),
    "two axes": ([(3, 2), (4, 2), (4, 2)], {"causal": True}),
    "two axes, mask": ([(3, 2), (4, 2), (4, 2)], {"attn_mask": MASK, "key_lengths": [3]}),
    "three axes": ([(2, 3, 2), (1, 4, 2), (1, 4, 2)], {}),
    "three axes, mask": ([(2, 3, 2), (1, 4, 2), (1, 4, 2)], {"attn_mask": MASK}),
    "five axes": ([(2, 1, 1, 2, 2), (2, 1, 1, 2, 2), (2, 1, 1, 2, 2)], {"causal": True}),
}


def _oracle(
    q, k, v, causal=False, scale=None, key_lengths=None, attn_mask=None, window=None, soft_cap=None, alibi_slopes=None
):
    """The definition, in torch: softmax of the visible scores; rows that see nothing give zeros."""
    import torch

    heads, keys = (q.shape[-3], k.shape[-3]) if q.ndim > 2 else (1, 1)
    if heads != keys:
        k, v = (x.repeat_interleave(heads // keys, -3) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    T, S = scores.shape[-2:]
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    distance = torch.arange(T)[:, None] + S - T - torch.arange(S)
    if alibi_slopes is not None:
        scores = scores - torch.as_tensor(alibi_slopes)[:, None, None] * distance.abs()
    seen = torch.ones(T, S, dtype=torch.bool)
    if window is not None:
        left, right = (window - 1, window - 1) if isinstance(window, int) else window
        seen = (distance <= left) & (-distance <= right)
    if causal:
        seen = seen.tril(S - T)
    if key_lengths is not None:
        lengths = torch.as_tensor(key_lengths).reshape(-1, 1, 1, 1)
        rows = torch.arange(S) < lengths
        seen = seen & (rows if q.ndim == 4 else rows.reshape(-1, S)[:1])
    if attn_mask is not None and attn_mask.dtype == bool:
        seen = seen & torch.from_numpy(attn_mask)
    elif attn_mask is not None:
        scores = scores + torch.from_numpy(attn_mask)
    # -1e9 and not -inf: the softmax of a row of -inf is NaN, and so is its gradient, even where it is masked after.
    weights = torch.softmax(torch.where(seen, scores, -1e9), -1) * seen
    return weights @ v


def _beside(q, settings: dict) -> dict:
    """The settings with the mask where q is; the others are sent there by attention itself."""
    mask = settings.get("attn_mask")
    return settings if mask is None else {**settings, "attn_mask": beside(q, mask)}


@pytest.mark.parametrize("name", SETTINGS)
def test_attention(name, check):
    shapes, settings = SETTINGS[name]
    check(lambda q, k, v: attend(q, k, v, **_beside(q, settings)), shapes, lambda q, k, v: _oracle(q, k, v, **settings))


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"key_lengths": [17, 5]}])
@pytest.mark.parametrize(("T", "S"), [(33, 33), (31, 65), (1, 64)])
def test_kernel_and_composition_agree_in_float32(settings, T, S, rng):
    shapes = [(2, 4, T, 16), (2, 2, S, 16), (2, 2, S, 16)]
    qkv = [minilm.tensor(rng.standard_normal(s).astype(np.float32), requires_grad=True) for s in shapes]
    g = rng.standard_normal(shapes[0]).astype(np.float32)
    fused = attend(*qkv, **settings)
    composed = attend(*qkv, attn_mask=np.ones((T, S), bool), **settings)
    np.testing.assert_allclose(fused.numpy(), composed.numpy(), rtol=1e-4, atol=2e-6)
    for a, b in zip(minilm.grad(fused, qkv, g), minilm.grad(composed, qkv, g)):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_boolean_mask_is_for_every_dtype(device, dtype, rng):
    x = minilm.tensor(rng.standard_normal((1, 2, 3, 8)), dtype=dtype, device=device)
    masked = attend(x, x, x, attn_mask=beside(x, np.tri(3, dtype=bool)))
    causal = attend(x, x, x, causal=True)
    assert str(masked.dtype) == dtype
    found, expected = (y.numpy().astype(np.float32) for y in (masked, causal))
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.01)


def test_a_learned_additive_mask_has_a_gradient(check):
    shapes = [(1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 2), (2, 3, 4)]
    check(lambda q, k, v, bias: attend(q, k, v, attn_mask=bias), shapes)


def test_dropout_of_the_weights(check):
    shapes = [(1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2)]
    check(lambda q, k, v: attend(q, k, v, dropout_p=0.5, generator=Generator(2)), shapes)


def test_one_projection_in_and_joined_heads_out(check, rng):
    def parts(qkv, **settings):
        q, k, v = (ops.split_heads(part, 2) for part in ops.split(qkv, 3, axis=2))
        return ops.join_heads(attend(q, k, v, **settings))

    bias = rng.standard_normal((2, 4, 4))
    for settings in ({}, {"causal": True, "window": 2}, {"attn_mask": bias}, {"key_lengths": [1, 4]}):
        check(lambda qkv, settings=settings: ops.packed_self_attention(qkv, 2, **_beside(qkv, settings)), [(2, 4, 12)])
        qkv = minilm.tensor(rng.standard_normal((2, 4, 12)), requires_grad=True)
        packed, split = ops.packed_self_attention(qkv, 2, **settings), parts(qkv, **settings)
        np.testing.assert_allclose(packed.numpy(), split.numpy(), rtol=1e-12, atol=1e-12)
    check(lambda qkv, bias: ops.packed_self_attention(qkv, 2, attn_mask=bias), [(2, 4, 12), (2, 4, 4)])
    drop = {"dropout_p": 0.5, "causal": True}
    check(lambda qkv: ops.packed_self_attention(qkv, 2, generator=Generator(3), **drop), [(1, 3, 12)])
    assert not ops.packed_self_attention(qkv, 2, dropout_p=1).numpy().any()
    with pytest.raises(ValueError, match="H = 5 heads"):
        ops.packed_self_attention(qkv, 5)


def test_an_output_changed_in_place_is_found(rng):
    qkv = minilm.tensor(rng.standard_normal((1, 4, 12)), requires_grad=True)
    x = qkv[..., :4].reshape(1, 1, 4, 4)
    for y in (ops.packed_self_attention(qkv, 2), attend(x, x, x)):
        with minilm.no_grad():
            y.detach()[0] = 0
        with pytest.raises(RuntimeError, match="kept 'its output' for its gradient, and it was changed in place"):
            y.sum().backward()


def test_weights_sum_to_one_and_make_the_output(rng):
    q, k, v = rng.standard_normal((3, 2, 2, 5, 4))
    weights = ops.attention_weights(q, k, causal=True)
    np.testing.assert_allclose(weights.sum(-1), 1)
    assert (np.triu(weights[0, 0], 1) == 0).all()
    np.testing.assert_allclose(weights @ v, attend(q, k, v, causal=True), rtol=1e-9, atol=1e-12)


def test_self_attention_adds_up_the_gradients_of_its_three_inputs(rng):
    x = minilm.tensor(rng.standard_normal((1, 1, 3, 2)), requires_grad=True)
    parts = [minilm.tensor(x.numpy(), requires_grad=True) for _ in range(3)]
    attend(x, x, x).sum().backward()
    attend(*parts).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), sum(p.grad.numpy() for p in parts), rtol=1e-12, atol=1e-12)


def test_shapes_that_do_not_fit_are_an_error():
    def zeros(*shape):
        return minilm.tensor(np.zeros(shape, np.float32))

    with pytest.raises(ValueError, match="equally many axes"):
        attend(zeros(2, 2), zeros(1, 2, 2), zeros(2, 2))
    with pytest.raises(ValueError, match="same batch axes"):
        attend(zeros(2, 3, 1, 2, 2), zeros(3, 2, 1, 2, 2), zeros(3, 2, 1, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, T, H D\) with H = 3 heads; got shape \(1, 2, 4\)"):
        ops.split_heads(zeros(1, 2, 4), 3)
    with pytest.raises(ValueError, match=r"\(B, T, H D\) with H = 2 heads; got shape \(2, 4\)"):
        ops.split_heads(zeros(2, 4), 2)
    with pytest.raises(ValueError, match=r"3.*heads"):
        attend(zeros(1, 3, 2, 2), zeros(1, 2, 2, 2), zeros(1, 2, 2, 2))


def test_a_mask_of_integers_could_mean_either_and_a_list_is_taken(rng, device):
    x = minilm.tensor(rng.standard_normal((1, 1, 3, 4)).astype(np.float32), device=device)
    seen = [[True, False, False], [True, True, False], [True, True, True]]
    np.testing.assert_array_equal(attend(x, x, x, attn_mask=seen).numpy(), attend(x, x, x, causal=True).numpy())
    for mask in (np.array(seen, int), minilm.tensor(seen).to("int32"), np.array(seen, int).tolist()):
        with pytest.raises(TypeError, match=r"attn_mask is int\d\d: .* attn_mask\.astype\(bool\), or .*'float32'"):
            attend(x, x, x, attn_mask=mask)


def test_settings_are_the_kernels_and_get_no_gradient_in_silence():
    known = inspect.signature(minilm_kernels.attention).parameters.keys()
    own = {"q", "k", "v", "causal", "bias", "dropout_p", "seed"}  # given otherwise
    assert set(attention._KNOWN) == known - own
    x = np.ones((1, 2, 3, 4), np.float32)
    for name, message in (
        ("is_causal", "attention has no argument 'is_causal'; it is called causal"),
        ("mask_mod", r"no argument 'mask_mod'; give block_mask=block_mask\(mask_mod"),
        ("masked", "no argument 'masked'; there are: causal, attn_mask, .*score_mod"),
    ):
        with pytest.raises(TypeError, match=message):
            attend(x, x, x, **{name: True})
        with pytest.raises(TypeError, match=message):
            ops.packed_self_attention(np.ones((1, 3, 24), np.float32), 2, **{name: True})
    slopes = minilm.tensor([0.5, 0.25], requires_grad=True)
    with pytest.raises(ValueError, match=r"no gradient to 'alibi_slopes'.* pass alibi_slopes\.detach\(\)"):
        attend(x, x, x, alibi_slopes=slopes)
    with minilm.no_grad():
        seen = attend(x, x, x, alibi_slopes=slopes)
    np.testing.assert_array_equal(seen, attend(x, x, x, alibi_slopes=slopes.detach()))
