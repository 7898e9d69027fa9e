"""The state of an optimiser: where its arrays lie, and how they are read back from a checkpoint."""

from __future__ import annotations

from minilm import backend
from minilm.autograd import Tensor

from . import settings

__all__ = ["LABELS", "ensure", "load", "starts"]

LABELS = ("name", "initial_lr")  # what a group may hold beside its settings
_ALIGNMENT = 64  # bytes: a parameter's slice begins on a cache line, so that vector loads cross none


def ensure(state: dict, group: list[Tensor], ready: list[Tensor], names: tuple[str, ...], labels: dict) -> None:
    """Makes state for the trained parameters of a group if one in `ready` has none; checks that theirs fits them.

    One flat zero array for each of `names`, dtype and device; a parameter's state is its slice of each.
    """
    if not state.keys() >= set(ready):
        _allocate(state, [p for p in group if p.requires_grad and p not in state], names)
    for parameter in ready:
        entry, data = state[parameter], parameter.data
        shape, dtype, library = data.shape, data.dtype, type(data)
        for name in names:
            array = entry.get(name)
            if type(array) is library and array.dtype is dtype and array.shape == shape:
                continue  # nearly always
            if array is None:
                raise ValueError(
                    f"parameter {labels[parameter]} has taken steps without {name}, which the settings of its group "
                    "need now; make a new optimiser to begin with them"
                )
            if array.shape != parameter.shape or array.dtype != parameter.dtype or _elsewhere(array, parameter):
                raise ValueError(
                    f"{name} of parameter {labels[parameter]} is {array.dtype} {array.shape} on "
                    f"{backend.device_of(array)}, and the parameter is {parameter.dtype} {parameter.shape} on "
                    f"{parameter.device} by now; make the optimiser after converting or moving the model"
                )


def starts(parameters: list[Tensor], dtype) -> list[int]:
    """Where in a flat array each parameter's slice begins, and the array's length."""
    unit, found = max(1, _ALIGNMENT // dtype.itemsize), [0]
    for parameter in parameters:
        found.append(found[-1] + -(-parameter.size // unit) * unit)
    return found


def _allocate(state: dict, parameters: list[Tensor], names: tuple[str, ...]) -> None:
    alike: dict[tuple, list[Tensor]] = {}
    for parameter in parameters:
        alike.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for (dtype, _), members in alike.items():
        xp = backend.array_module(members[0].data)
        places = starts(members, dtype)
        for parameter in members:
            state[parameter] = {"step": 0}
        for name in names:
            flat = xp.zeros(places[-1], dtype)
            for parameter, start in zip(members, places):
                state[parameter][name] = flat[start : start + parameter.size].reshape(parameter.shape)


def _elsewhere(array, parameter: Tensor) -> bool:
    return backend.array_module(array) is not backend.array_module(parameter.data)


def load(optimizer, saved: dict, labels: dict[Tensor, str]) -> None:
    """What `Optimizer.load_state_dict` does: checks all of `saved`, then takes it over."""
    arrays, about = _parts(optimizer, saved)
    groups = [
        _new_group(optimizer, i, group, entry, labels)
        for i, (group, entry) in enumerate(zip(optimizer.param_groups, about["groups"]))
    ]
    steps = {name: settings.count(f"the number of steps of {name}", n) for name, n in about["steps"].items()}
    stepped = [[parameter for parameter in group["params"] if labels[parameter] in steps] for group in groups]
    _check_arrays(optimizer, groups, stepped, arrays, steps, labels)
    # Nothing can be refused from here on.
    new_state: dict[Tensor, dict] = {}
    for group, new, members in zip(optimizer.param_groups, groups, stepped):
        group.clear()
        group.update(new)
        names = optimizer.array_names(group)
        _allocate(new_state, members, names)
        for parameter in members:
            entry, label = new_state[parameter], labels[parameter]
            entry["step"] = steps[label]
            for name in names:
                entry[name][...] = backend.to_device(arrays[f"{name}.{label}"], parameter.device)
    optimizer.state = new_state


def _parts(optimizer, saved: dict) -> tuple[dict, dict]:
    """The arrays and the rest, if they come from an optimiser of this kind with as many groups."""
    if not isinstance(saved, dict) or set(saved) != {"arrays", "settings"}:
        raise ValueError("expected what state_dict() returned: a dict with the entries 'arrays' and 'settings'")
    about = saved["settings"]
    if not {"optimizer", "steps", "groups"} <= set(about):
        raise ValueError("the settings of the state need the entries 'optimizer', 'steps' and 'groups'; got others")
    kind = type(optimizer).__name__
    if about["optimizer"] != kind:
        raise ValueError(
            f"the state was saved by {about['optimizer']}, and this is {kind}; make a {about['optimizer']}"
        )
    if len(about["groups"]) != len(optimizer.param_groups):
        raise ValueError(
            f"the state has {len(about['groups'])} parameter groups, and this optimiser {len(optimizer.param_groups)}; "
            "make it with the groups that were saved"
        )
    return saved["arrays"], about


def _new_group(optimizer, i: int, group: dict, saved: dict, labels: dict[Tensor, str]) -> dict:
    """The group as it will be: its own parameters with the saved settings, checked."""
    own, theirs = [labels[parameter] for parameter in group["params"]], saved["params"]
    if own != theirs:
        odd = sorted(set(own) ^ set(theirs))
        what = f"{odd[0]!r} is in only one of them" if odd else "their order differs"
        raise ValueError(
            f"group {i} has {len(theirs)} parameters in the state and {len(own)} in this optimiser; {what}"
        )
    new = dict(saved["settings"])
    odd = sorted((set(new) - set(LABELS)) ^ set(optimizer.defaults))
    if odd:
        raise ValueError(f"the setting {odd[0]!r} of group {i} is in only one of the state and this optimiser")
    optimizer.check(new)
    return {"params": group["params"], **new}


def _check_arrays(optimizer, groups: list, stepped: list, arrays: dict, steps: dict, labels: dict) -> None:
    """ValueError unless `arrays` holds what the parameters in `stepped` need, and nothing else."""
    strangers = set(steps) - {labels[parameter] for members in stepped for parameter in members}
    if strangers:
        raise ValueError(f"the state counts steps of {min(strangers)!r}, which is no parameter of this optimiser")
    used = set()
    for group, members in zip(groups, stepped):
        for parameter in members:
            for name in optimizer.array_names(group):
                key = f"{name}.{labels[parameter]}"
                used.add(key)
                if key not in arrays:
                    raise ValueError(f"the state has no array {key!r}")
                shape, dtype = tuple(arrays[key].shape), arrays[key].dtype
                if shape != parameter.shape or dtype != parameter.dtype:
                    raise ValueError(
                        f"the array {key!r} of the state is {dtype} {shape}; the parameter is {parameter.dtype} "
                        f"{parameter.shape}"
                    )
    left = set(arrays) - used
    if left:
        raise ValueError(f"the state has an array {min(left)!r} that this optimiser does not need")
