"""Checks of weights and of optimisers' states, and a limit on the policy that is built for them."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from sb3_bomrl.checks import short
from sb3_bomrl.saving.checks import is_number
from sb3_bomrl.saving.safe_json import CLASSES

_MAX_TENSORS = 10_000
"""Tensors of a policy; building one of more takes longer than a file may."""


def check_module_state(name: str, state: Mapping[str, Any], module: th.nn.Module) -> None:
    """
    Require weights that are finite in the module's own precision. Names and shapes are checked by torch.

    :param name: of the module, for the error
    :param state: its state dictionary
    :param module: the module that will load it
    :raises ValueError: if a weight is not finite or of another kind of number, with its name
    """
    own = module.state_dict()
    for key, value in state.items():
        if not (isinstance(value, th.Tensor) and key in own and own[key].shape == value.shape):
            continue
        if _kind(value) != _kind(own[key]):
            raise ValueError(f"{name} must have {_kind(own[key])} weights, but {short(key)} is of type {value.dtype}")
        if not value.to(own[key].dtype).isfinite().all():
            raise ValueError(f"{name} must have finite weights, but {short(key)} is not finite")


def _kind(tensor: th.Tensor) -> str:
    if tensor.dtype == th.bool:
        return "boolean"
    return "real" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"


def check_optimizer_state(name: str, state: Any, optimizer: th.optim.Optimizer) -> None:
    """
    Require an optimiser's parameter groups with options that it accepts, and finite tensors in the shapes of its
    parameters.

    :param name: of the optimiser, for the error
    :param state: its state dictionary
    :param optimizer: the optimiser that will load it
    :raises ValueError: if a group, an option or a tensor does not fit
    """
    own = optimizer.state_dict()["param_groups"]
    try:
        groups, slots = state["param_groups"], state["state"]
        if [list(group["params"]) for group in groups] != [group["params"] for group in own]:
            raise ValueError("the groups of parameters differ")
        for group, current in zip(groups, own, strict=True):
            for key, value in group.items():
                if key != "params" and not _is_option(value, current.get(key)):
                    raise ValueError(f"{short(key)} is {short(value)}")
        expected = [_new_state(optimizer, group) for group in groups]
        parameters = [(i, parameter) for i, group in enumerate(optimizer.param_groups) for parameter in group["params"]]
        storages = set[int]()
        for index, slot in slots.items():
            i, parameter = parameters[index]
            if expected[i] is not None and slot and slot.keys() != expected[i]:
                raise ValueError(f"parameter {index} has {short(sorted(slot))} in place of {sorted(expected[i] or ())}")
            for key, value in slot.items():
                if isinstance(value, th.Tensor) and value.numel() > 0 and value.shape == parameter.shape:
                    storage = value.untyped_storage().data_ptr()
                    if storage in storages or _overlaps_itself(value):
                        raise ValueError(f"{short(key)} of parameter {index} shares memory")
                    storages.add(storage)
                if isinstance(value, th.Tensor) and value.shape not in (parameter.shape, ()):
                    raise ValueError(f"{short(key)} of parameter {index} has shape {tuple(value.shape)}")
                if not th.as_tensor(value).to(parameter.dtype).isfinite().all():
                    raise ValueError(f"{short(key)} of parameter {index} is not finite")
                if key == "step" and float(value) < 0:
                    raise ValueError(f"{key!r} of parameter {index} is {float(value)}")
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} must be the state of the model's optimiser, but {error}") from error


def _overlaps_itself(tensor: th.Tensor) -> bool:
    """True if two elements may lie at one place, as in an expanded tensor."""
    extent = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < extent:
            return True
        extent += stride * (size - 1)
    return False


def _is_option(value: Any, current: Any) -> bool:
    """True if a value can replace an option of an optimiser."""
    if isinstance(value, tuple | list):
        return isinstance(current, tuple | list) and len(value) == len(current) and all(map(is_number, value))
    if is_number(current):
        return is_number(value) and bool(np.isfinite(value))
    return value is None or value is False or (isinstance(value, bool) and value == current)


def _new_state(optimizer: th.optim.Optimizer, group: Mapping[str, Any]) -> set[str] | None:
    """Names in the state of an optimiser with a group's options after a step; torch refuses impossible ones."""
    kind = type(optimizer)
    if kind not in CLASSES.values():
        return None  # a class of the user's, of which no more is known
    names = inspect.signature(kind).parameters.keys() - {"params"}
    parameter = th.zeros(1, requires_grad=True)
    parameter.grad = th.zeros(1)
    probe = kind([parameter], **{key: value for key, value in group.items() if key in names})
    probe.step()
    return set(probe.state[parameter])


class WeightLimit(TorchFunctionMode):
    """
    Context in which a policy can be built that is no larger than the weights in a file.

    It stops a file that describes a much larger policy, or one of many more layers, before that takes up memory or
    time.

    :param weights: the policy's state dictionary in the file
    :raises ValueError: if a larger tensor is made, or a module with more parameters
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__()
        tensors = [value for value in weights.values() if isinstance(value, th.Tensor)]
        if len(tensors) > _MAX_TENSORS:
            raise ValueError(f"a policy of more than {_MAX_TENSORS} tensors")
        # an expanded tensor has more elements than its storage, and one storage may be there under several names
        storages = {value.untyped_storage().data_ptr(): value for value in tensors}
        held = sum(value.untyped_storage().nbytes() // value.element_size() for value in storages.values())
        self._largest = held + 2**20
        self._n_elements, self._n_tensors = 2 * held + 2**16, 2 * len(tensors) + 16

    def __enter__(self) -> "WeightLimit":
        self._hook = register_module_parameter_registration_hook(self._count)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        super().__exit__(*error)

    def _count(self, module: th.nn.Module, name: str, parameter: th.nn.Parameter | None) -> None:
        self._n_tensors -= 1
        self._n_elements -= 0 if parameter is None else parameter.numel()
        if min(self._n_tensors, self._n_elements) < 0:
            raise ValueError("the policy is larger than all weights in the file")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is th.linalg.qr:  # of initial weights, which takes longest, and those of the file replace them
            n = min(args[0].shape)
            return args[0][:, :n], args[0][:n]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, th.Tensor) and out.numel() > self._largest:
            raise ValueError(f"a tensor of shape {tuple(out.shape)} is larger than all weights in the file")
        return out
