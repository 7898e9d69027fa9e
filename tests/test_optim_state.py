"""What every optimiser shares: parameters and groups, state and checkpoints, and errors that say what to do."""

import json

import numpy as np
import pytest

import minilm
from minilm.optim import LAMB, SGD, Adam, AdamW, Optimizer, make_schedule

MAKERS = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.1),
    "adamw": lambda p: AdamW(p, lr=0.1, betas=(0.8, 0.95)),
    "lamb": lambda p: LAMB(p, lr=0.1),
}
SHAPES = {"a.weight": (3, 5), "a.bias": (5,), "b.weight": (5, 2), "frozen": (2,), "unused": (4,)}


def named(seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    tensors = {name: minilm.tensor(rng.standard_normal(shape).astype(dtype), True) for name, shape in SHAPES.items()}
    tensors["frozen"].requires_grad_(False)
    return tensors


def groups_of(tensors):
    items = list(tensors.items())
    return [{"params": items[:2], "name": "first"}, {"params": items[2:], "lr": 0.02}]


def leaf(values=(1.0, 2.0), dtype="float32"):
    return minilm.tensor(np.array(values, dtype), requires_grad=True)


def train(tensors, optimizer, steps, first=0):
    schedule = make_schedule("cosine", steps=40, warmup=4)
    for step in range(first, first + steps):
        schedule.apply(optimizer, step)
        rng = np.random.default_rng(step)
        for name in ("a.weight", "a.bias", "b.weight"):
            if (step, name) != (2, "b.weight"):  # so that counts of steps differ
                tensors[name].grad = minilm.tensor(rng.standard_normal(SHAPES[name]).astype("float32"))
        optimizer.step(grad_scale=0.5)
        optimizer.zero_grad()


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_run_that_was_saved_goes_on_bit_for_bit(maker):
    tensors = named()
    optimizer = maker(groups_of(tensors))
    train(tensors, optimizer, 7)
    saved = optimizer.state_dict()
    arrays = {key: array.copy() for key, array in saved["arrays"].items()}
    text = json.dumps(saved["settings"], allow_nan=False)
    weights = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    train(tensors, optimizer, 6, first=7)

    resumed = {name: minilm.tensor(weights[name], tensors[name].requires_grad) for name in tensors}
    other = maker(groups_of(resumed))
    train(named(seed=5), other, 0)
    other.load_state_dict({"arrays": arrays, "settings": json.loads(text)})
    train(resumed, other, 6, first=7)
    for name in tensors:
        assert np.array_equal(tensors[name].numpy(), resumed[name].numpy()), name
    after, expected = other.state_dict(), optimizer.state_dict()
    assert after["settings"] == expected["settings"]
    assert after["arrays"].keys() == expected["arrays"].keys()
    assert all(np.array_equal(after["arrays"][key], expected["arrays"][key]) for key in expected["arrays"])
    assert other.param_groups[0]["name"] == "first"
    assert all(isinstance(group.get("betas", ()), tuple) for group in other.param_groups)


def test_loading_its_own_state_changes_nothing():
    tensors = named()
    optimizer = AdamW(groups_of(tensors))
    train(tensors, optimizer, 3)
    before = {key: array.copy() for key, array in optimizer.state_dict()["arrays"].items()}
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(np.array_equal(optimizer.state_dict()["arrays"][key], before[key]) for key in before)


def test_state_is_named_and_lies_in_one_flat_array_a_group():
    tensors = named()
    optimizer = AdamW(tensors.items())
    assert optimizer.state_dict()["arrays"] == {}
    train(tensors, optimizer, 1)
    arrays = optimizer.state_dict()["arrays"]
    assert arrays["exp_avg.a.weight"].shape == (3, 5)
    assert "exp_avg.frozen" not in arrays
    bases = {id(_base(array)) for key, array in arrays.items() if key.startswith("exp_avg.")}
    assert len(bases) == 1
    assert all(array.ctypes.data % 64 == _base(array).ctypes.data % 64 for array in arrays.values())
    assert optimizer.state_dict()["settings"]["steps"] == {"a.weight": 1, "a.bias": 1, "b.weight": 1, "unused": 0}


def _base(array):
    while array.base is not None:
        array = array.base
    return array


def test_frozen_parameters_stay_and_can_be_trained_later():
    tensors = named()
    optimizer = AdamW(tensors.items(), lr=0.1)
    tensors["frozen"].grad = minilm.tensor(np.ones(2, "float32"))
    before = tensors["frozen"].numpy().copy()
    optimizer.step()
    assert np.array_equal(tensors["frozen"].numpy(), before)
    tensors["frozen"].requires_grad_(True)
    optimizer.step()
    np.testing.assert_allclose(tensors["frozen"].numpy(), before * (1 - 0.1 * 0.01) - 0.1, rtol=1e-6)


def test_numbers_name_parameters_without_names_across_groups():
    optimizer = SGD([{"params": [leaf()]}, {"params": iter([leaf(), leaf()])}], lr=1.0, momentum=0.9)
    names = [group["params"] for group in optimizer.state_dict()["settings"]["groups"]]
    assert names == [["0"], ["1", "2"]]


def test_a_group_can_be_added_later():
    first, second = leaf(), leaf()
    optimizer = AdamW([first], lr=0.1)
    first.grad = minilm.tensor([1.0, 1.0])
    optimizer.step()
    optimizer.add_param_group({"params": [second], "lr": 0.5, "weight_decay": 0.0})
    second.grad = minilm.tensor([1.0, -1.0])
    optimizer.step()
    np.testing.assert_allclose(second.numpy(), [0.5, 2.5], rtol=1e-6)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_arrays_that_are_not_contiguous_are_updated_in_place(maker):
    storage = np.arange(12, dtype="float32").reshape(3, 4)
    plain, strided = minilm.tensor(storage.T.copy(), True), minilm.tensor(storage.T, True)
    gradient = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    for tensor in (plain, strided):
        tensor.grad = minilm.tensor(gradient.T)  # not contiguous either
        maker([tensor]).step()
    assert np.shares_memory(strided.data, storage)
    assert np.array_equal(strided.numpy(), plain.numpy())
    assert np.array_equal(storage.T, plain.numpy())


def test_a_step_is_a_change_in_place_for_the_tape():
    w = leaf()
    optimizer = SGD([w], lr=0.1)
    loss = (w * w).sum()
    w.grad = minilm.tensor([1.0, 1.0])
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_numpy_scalars_as_settings_do_not_promote(maker):
    w = leaf()
    optimizer = maker([w])
    optimizer.param_groups[0]["lr"] = np.float64(0.1)
    w.grad = minilm.tensor([1.0, 1.0])
    optimizer.step(grad_scale=np.float64(0.5))
    assert w.dtype == "float32"
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_repr_shows_groups_and_settings():
    text = repr(SGD([{"params": [leaf()], "name": "all"}], lr=0.25))
    assert "SGD(" in text
    assert "1 parameters, 2 numbers: lr=0.25" in text


# Errors.


def non_leaf():
    return leaf() * 2


def tied():
    w = leaf()
    return [("wte", w), ("head", w)]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (list, ValueError, "got no parameters"),
        (lambda: iter([]), ValueError, "used up before"),
        (lambda: [{"params": []}], ValueError, "got no parameters"),
        (lambda: leaf(), TypeError, "params is a Tensor; expected an iterable .* put a single tensor in a list"),
        (lambda: {"w": leaf()}, TypeError, r"pass dict.items\(\)"),
        (lambda: 3, TypeError, "params is a int"),
        (lambda: [leaf(), np.ones(2)], TypeError, r"params\[1\] is a ndarray; expected a minilm.Tensor"),
        (lambda: [leaf(), {"params": [leaf()]}], TypeError, r"params\[1\] is a dict"),
        (lambda: [{"params": [leaf()]}, leaf()], TypeError, "a dict with an entry 'params'; got Tensor"),
        (lambda: [{"parameters": [leaf()]}], TypeError, "'params'"),
        (lambda: [{"params": [leaf()], "momentun": 1}], ValueError, "no option 'momentun'; a group may set: lr, "),
        (lambda: [non_leaf()], ValueError, r"parameter 0 \(shape \(2,\)\) was computed by an operation"),
        (lambda: [minilm.tensor([1, 2])], TypeError, "parameter 0 is int64; only floating-point"),
        (tied, ValueError, "parameter head was given before, as wte"),
        (lambda: [("w", leaf()), ("w", leaf())], ValueError, "two parameters are named 'w'"),
        (lambda: [{"params": [leaf()], "lr": -1}], ValueError, "lr is -1.0; expected 0 or more"),
        (lambda: [{"params": [leaf()], "initial_lr": -1}], ValueError, "initial_lr is -1.0"),
    ],
)
def test_wrong_parameters(params, error, message):
    with pytest.raises(error, match=message):
        AdamW(params(), lr=0.1)


def test_a_module_is_not_its_parameters():
    class Module:
        def named_parameters(self):
            return iter(())

        def __iter__(self):  # as a Sequential has
            return iter(())

    with pytest.raises(TypeError, match=r"params is a Module; expected what its .parameters\(\)"):
        AdamW(Module())


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        (AdamW, {"lr": -0.1}, ValueError, "lr is -0.1; expected 0 or more"),
        (AdamW, {"lr": float("nan")}, ValueError, "lr is nan; expected a finite number"),
        (AdamW, {"lr": float("inf")}, ValueError, "lr is inf"),
        (AdamW, {"lr": "0.1"}, TypeError, "lr is '0.1'; expected a number"),
        (AdamW, {"eps": -1e-8}, ValueError, "eps is -1e-08"),
        (AdamW, {"betas": (0.9, 1.0)}, ValueError, r"betas is \(0.9, 1.0\)"),
        (Adam, {"betas": (-0.1, 0.9)}, ValueError, "betas"),
        (Adam, {"betas": 0.9}, TypeError, "betas is 0.9; expected two numbers"),
        (AdamW, {"weight_decay": -1}, ValueError, "weight_decay is -1.0"),
        (LAMB, {"weight_decay": -1}, ValueError, "weight_decay is -1.0"),
        (LAMB, {"betas": (2, 0)}, ValueError, "betas"),
        (LAMB, {"max_weight_norm": 0}, ValueError, "max_weight_norm is 0.0; expected more than 0"),
        (LAMB, {"always_adapt": 1}, TypeError, "always_adapt is 1; expected True or False"),
        (SGD, {"momentum": -1}, ValueError, "momentum is -1.0"),
        (SGD, {"dampening": float("nan")}, ValueError, "dampening is nan"),
        (SGD, {"nesterov": True}, ValueError, "nesterov needs a momentum above 0"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "dampening of 0"),
        (AdamW, {"amsgrad": True}, TypeError, "amsgrad"),
    ],
)
def test_settings_out_of_range(kind, settings, error, message):
    with pytest.raises(error, match=message):
        kind([leaf()], **settings)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_step_that_would_go_wrong_changes_nothing(maker):
    good, bad = leaf(), leaf()
    optimizer = maker([{"params": [("good", good)]}, {"params": [("bad", bad)]}])
    good.grad = minilm.tensor([1.0, 1.0])

    def refused(error, message, **settings):
        with pytest.raises(error, match=message):
            optimizer.step(**settings)
        assert good.tolist() == [1.0, 2.0]
        assert all(entry["step"] == 0 for entry in optimizer.state.values())

    refused(ValueError, "grad_scale is nan; expected a finite number", grad_scale=float("nan"))
    refused(TypeError, "grad_scale is <function", grad_scale=refused)
    optimizer.param_groups[1]["lr"] = float("nan")
    refused(ValueError, "lr is nan")
    optimizer.param_groups[1]["lr"] = 0.1
    bad.grad = np.ones(2)
    refused(TypeError, "gradient of parameter bad is a ndarray; expected a minilm.Tensor")
    bad.grad = minilm.tensor(np.ones(3, "float32"))
    refused(ValueError, r"gradient of parameter bad is float32 \(3,\) on cpu; expected .* float32 \(2,\) on cpu")
    bad.grad = minilm.tensor(np.ones(2))
    refused(ValueError, "gradient of parameter bad is float64")
    bad.grad = minilm.tensor([1.0, 1.0])
    bad.data = np.broadcast_to(np.float32(1), (2,))
    refused(ValueError, "parameter bad is read-only")


def test_a_parameter_that_was_converted_no_longer_fits_its_state():
    w = leaf()
    optimizer = AdamW([("w", w)])
    w.grad = minilm.tensor([1.0, 1.0])
    optimizer.step()
    w.data, w.grad = w.data.astype("float64"), minilm.tensor(np.ones(2))
    with pytest.raises(ValueError, match=r"exp_avg of parameter w is float32 .* make the optimiser after converting"):
        optimizer.step()


def test_momentum_cannot_begin_in_the_middle():
    w = leaf()
    optimizer = SGD([("w", w)], lr=0.1)
    w.grad = minilm.tensor([1.0, 1.0])
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.9
    with pytest.raises(ValueError, match="parameter w has taken steps without momentum_buffer"):
        optimizer.step()


def test_an_optimiser_has_to_define_its_update():
    w = leaf()
    w.grad = minilm.tensor([1.0, 1.0])
    with pytest.raises(NotImplementedError, match="Optimizer has to define update"):
        Optimizer([w], {"lr": 0.1}).step()


def spoil(key, change):
    def apply(saved):
        part = saved[key]
        return {**saved, key: change(dict(part))}

    return apply


def without(part, name):
    return {key: value for key, value in part.items() if key != name}


def with_group(i, **entries):
    def change(part):
        groups = [dict(group) for group in part["groups"]]
        groups[i] |= entries
        return part | {"groups": groups}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: {"arrays": {}}, "a dict with the entries 'arrays' and 'settings'"),
        (spoil("settings", lambda s: without(s, "steps")), "'optimizer', 'steps' and 'groups'"),
        (spoil("settings", lambda s: s | {"optimizer": "LAMB"}), "saved by LAMB, and this is AdamW"),
        (spoil("settings", lambda s: s | {"groups": s["groups"][:1]}), "has 1 parameter groups, and this optimiser 2"),
        (
            spoil("settings", with_group(0, params=["a.weight", "c"])),
            "group 0 has 2 parameters in the state and 2 .*; 'a.bias' is in only one",
        ),
        (spoil("settings", with_group(0, params=["a.bias", "a.weight"])), "their order differs"),
        (spoil("settings", with_group(1, settings={"lr": 0.1})), "the setting 'betas' of group 1 is in only one"),
        (
            spoil(
                "settings",
                with_group(1, settings={"lr": -1, "betas": [0.9, 0.9], "eps": 0, "weight_decay": 0}),
            ),
            "lr is -1.0",
        ),
        (spoil("settings", lambda s: s | {"steps": s["steps"] | {"zzz": 1}}), "counts steps of 'zzz'"),
        (spoil("settings", lambda s: s | {"steps": s["steps"] | {"a.bias": -1}}), "number of steps of a.bias is -1"),
        (spoil("arrays", lambda a: without(a, "exp_avg.a.bias")), "has no array 'exp_avg.a.bias'"),
        (spoil("arrays", lambda a: a | {"more": np.zeros(1)}), "an array 'more' that this optimiser does not need"),
        (
            spoil("arrays", lambda a: a | {"exp_avg.a.bias": np.zeros(6, "float32")}),
            r"'exp_avg.a.bias' of the state is float32 \(6,\); the parameter is float32 \(5,\)",
        ),
        (
            spoil("arrays", lambda a: a | {"exp_avg_sq.a.bias": np.zeros(5)}),
            "'exp_avg_sq.a.bias' of the state is float64",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, message):
    tensors = named()
    optimizer = AdamW(groups_of(tensors))
    train(tensors, optimizer, 2)
    saved = optimizer.state_dict()
    before = {key: array.copy() for key, array in saved["arrays"].items()}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(change(saved))
    after = optimizer.state_dict()
    assert after["settings"] == saved["settings"]
    assert all(np.array_equal(after["arrays"][key], before[key]) for key in before)
