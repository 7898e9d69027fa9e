"""Einstein's summation: NumPy's results, gradients of both orders, every device and dtype, and what does not fit."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm
from minilm import backend, ops

EINSUMS = {
    "attention scores": ("bhtd,bhsd->bhts", [(2, 1, 2, 3), (2, 1, 4, 3)]),
    "heads inside": ("bthd,bshd->bhts", [(2, 2, 1, 3), (2, 4, 1, 3)]),
    "matrix product": ("ij,jk->ik", [(2, 3), (3, 2)]),
    "its transpose": ("ij,jk->ki", [(2, 3), (3, 2)]),
    "inferred output": ("ij,jk", [(2, 3), (3, 2)]),
    "inferred output, sorted": ("ba", [(2, 3)]),
    "transpose": ("ij->ji", [(2, 3)]),
    "sum": ("ij->", [(2, 3)]),
    "sum of one axis": ("ijk->ik", [(2, 3, 2)]),
    "sum beside another": ("ij,k->k", [(2, 3), (4,)]),
    "outer": ("i,j->ij", [(2,), (3,)]),
    "outer, the other way": ("i,j->ji", [(2,), (3,)]),
    "outer of a batch": ("bi,bj->ibj", [(2, 3), (2, 2)]),
    "elements": ("ij,ji->ij", [(2, 3), (3, 2)]),
    "dot": ("i,i", [(3,), (3,)]),
    "dots of a batch": ("bi,bi->b", [(2, 3), (2, 3)]),
    "numbers": (",->", [(), ()]),
    "a number beside": (",ij->ji", [(), (2, 3)]),
    "two axes summed": ("aibj,ckij->kabc", [(2, 3, 1, 2), (2, 2, 3, 2)]),
    "diagonal": ("ii->i", [(3, 3)]),
    "trace": ("ii", [(3, 3)]),
    "diagonal in a product": ("iij,jk->ik", [(2, 2, 3), (3, 2)]),
    "three operands": ("ij,jk,kl->il", [(2, 3), (3, 2), (2, 2)]),
    "three of one letter": ("i,i,i->i", [(3,), (3,), (3,)]),
    "bilinear form": ("bi,ij,bj->b", [(2, 3), (3, 2), (2, 2)]),
    "four operands": ("ab,bc,cd,da->", [(2, 3), (3, 2), (2, 2), (2, 2)]),
    "ellipsis": ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 2)]),
    "ellipses, broadcast": ("...ij,jk->...ik", [(2, 1, 2, 3), (3, 2)]),
    "ellipses of two widths": ("i...,i...->...", [(2, 3, 2), (2, 2)]),
    "ellipsis, inferred": ("...i,i", [(2, 3), (3,)]),
    "length 1, repeated": ("ij,ij->ij", [(1, 3), (2, 1)]),
    "length 1, summed": ("ij,jk->ik", [(2, 1), (3, 2)]),
    "spaces": (" i j , j k -> i k ", [(2, 3), (3, 2)]),
    "empty": ("ij,jk->ik", [(0, 3), (3, 2)]),
    "a sum of nothing": ("ij,jk->ik", [(2, 0), (0, 2)]),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_einsum(name, check, rng):
    subscripts, shapes = EINSUMS[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    np.testing.assert_allclose(ops.einsum(subscripts, *arrays), np.einsum(subscripts, *arrays), atol=1e-14)
    check(lambda *operands: ops.einsum(subscripts, *operands), arrays)


@pytest.mark.parametrize("name", EINSUMS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_einsum_keeps_its_dtype_on_every_device(name, dtype, device, rng):
    subscripts, shapes = EINSUMS[name]
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    y = ops.einsum(subscripts, *(backend.to_device(x, device) for x in arrays))
    exact = np.einsum(subscripts, *(x.astype(np.float64) for x in arrays))
    assert y.dtype == dtype
    tolerance = 2 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(backend.to_numpy(y).astype(np.float64), exact, rtol=tolerance, atol=8 * tolerance)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_letters(data):
    lengths = {c: data.draw(st.integers(0, 3), label=c) for c in "abcde"}
    terms = data.draw(st.lists(st.text("abcde", max_size=4), min_size=1, max_size=4))
    out = data.draw(st.lists(st.sampled_from("abcde"), unique=True).filter(lambda o: set(o) <= set("".join(terms))))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal([lengths[c] for c in term]) for term in terms]
    subscripts = f"{','.join(terms)}->{''.join(out)}"
    np.testing.assert_allclose(ops.einsum(subscripts, *arrays), np.einsum(subscripts, *arrays), atol=1e-12)


def test_einsum_of_one_operand_is_a_view_as_numpys():
    x = minilm.tensor(np.ones((2, 3)), requires_grad=True)
    assert np.shares_memory(ops.einsum("ij->ji", x).data, x.data)


REFUSED = {
    "too few operands": ("ij,jk->ik", [(2, 3)], "names 2 operands, got 1"),
    "too few letters": ("i->i", [(2, 3)], "term 'i' names 1 axes, operand 0 has 2"),
    "uneven diagonal": ("ii->i", [(2, 3)], "different lengths"),
    "lengths": ("ij,jk->ik", [(2, 3), (2, 3)], "'j' names an axis of length 2 in operand 1, .* 3"),
    "a letter from nowhere": ("ij->ik", [(2, 3)], "'k' must name one axis"),
    "a letter twice": ("ij->ii", [(2, 3)], "'i' must name one axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    subscripts, shapes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        ops.einsum(subscripts, *(minilm.tensor(np.ones(shape), requires_grad=True) for shape in shapes))
