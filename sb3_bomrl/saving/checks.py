"""Checks of a model file from an untrusted source, made before its content is used."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.overrides import TorchFunctionMode


def _is_class(base: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, base)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_observation(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray | dict)


def _is_episodes(value: Any) -> bool:
    return value is None or isinstance(value, deque)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


_ACCEPTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "policy_class": ("a policy class", _is_class(ActorCriticPolicy)),
    "rollout_buffer_class": ("a rollout buffer class", lambda x: x is None or _is_class(RolloutBuffer)(x)),
    "observation_space": ("a space", lambda x: isinstance(x, spaces.Space)),
    "action_space": ("a space", lambda x: isinstance(x, spaces.Space)),
    "n_envs": ("an integer of at least 1", lambda x: _is_count(x) and x >= 1),
    "_stats_window_size": ("an integer of at least 1", lambda x: _is_count(x) and x >= 1),
    "tasks_per_chunk": ("None or an integer of at least 1", lambda x: x is None or (_is_count(x) and x >= 1)),
    "seed": ("None or an integer", lambda x: x is None or (_is_count(x) and x < 2**32)),
    "sde_sample_freq": ("an integer", lambda x: type(x) is int),
    "start_time": ("a number", lambda x: _is_number(x) and np.isfinite(x)),
    "action_noise": ("None", lambda x: x is None),
    "tensorboard_log": ("None or text", lambda x: x is None or isinstance(x, str)),
    "lr_schedule": ("a schedule", callable),
    "ep_info_buffer": ("None or a deque", _is_episodes),
    "ep_success_buffer": ("None or a deque", _is_episodes),
    "_last_obs": ("None or arrays", _is_observation),
    "_last_original_obs": ("None or arrays", _is_observation),
    "_last_episode_starts": ("None or an array", _is_observation),
    "_normalizer_statistics": ("None or a dictionary", lambda x: x is None or isinstance(x, dict)),
    "_algorithm_name": ("text", lambda x: isinstance(x, str)),
}
"""Settings whose accepted type does not follow from their value in a new model: the type in words, and its check."""

_MADE_LATER = ("observation_space", "action_space", "n_envs", "lr_schedule", "_algorithm_name")


def check_settings(settings: Mapping[str, Any], new: Mapping[str, Any], excluded: set[str], given: set[str]) -> None:
    """
    Require exactly the settings of a model of the class, each of its type.

    Ranges are checked when the model is set up.

    :param settings: from the file
    :param new: attributes of a model that was constructed but not set up
    :param excluded: attributes that are never saved
    :param given: settings that the caller gives; the file may lack them
    :raises ValueError: if one is missing, unknown or of another type, with its name, value and what is accepted
    """
    accepted = ({*new, *_MADE_LATER}) - excluded
    unknown, missing = sorted(set(settings) - accepted - given), sorted(accepted - set(settings) - given)
    if unknown:
        raise ValueError(f"settings of the file must be those of the model, got also {', '.join(map(repr, unknown))}")
    if missing:
        raise ValueError(f"settings of the file must be complete, but {', '.join(map(repr, missing))} is missing")
    for name, value in settings.items():
        if name in given:
            continue
        words, fits = _ACCEPTED[name] if name in _ACCEPTED else _like(new[name])
        if not fits(value):
            raise ValueError(f"setting {name!r} of the file must be {words}, got {_short(value)}")


def _like(example: Any) -> tuple[str, Callable[[Any], bool]]:
    """The type accepted for a setting, in words, and its check, by the setting's value in a new model."""
    if type(example) is int:
        return "an integer of at least 0", _is_count
    if type(example) is float:
        return "a number or a schedule", lambda x: callable(x) or _is_number(x)
    if example is None:
        return "None", lambda x: x is None
    kind = type(example)
    return f"of type {kind.__name__}", lambda x: isinstance(x, kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_normalizer_statistics(statistics: Any, space: spaces.Space) -> None:
    """
    Require finite means, variances of at least 0 and counts, in the shapes of the observations.

    :param statistics: of a ``VecNormalize``, from the file; ``None`` is accepted
    :param space: observation space
    :raises ValueError: if they are not
    """
    if statistics is None:
        return
    try:
        own = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        parts = [(f"obs{key and f' {key!r}'}", own[key].shape, rms) for key, rms in statistics["obs"].items()]
        for name, shape, rms in [*parts, ("returns", (), statistics["returns"])]:
            mean, var, count = (np.asarray(rms[field], dtype=np.float64) for field in ("mean", "var", "count"))
            if mean.shape != shape or var.shape != shape or count.shape != ():
                raise ValueError(f"those of {name} must have shape {shape}, got {mean.shape}")
            if not (np.isfinite([mean.sum(), var.sum(), count]).all() and (var >= 0).all() and count >= 0):
                raise ValueError(f"those of {name} must be finite numbers, the variance at least 0")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"normaliser statistics of the file do not fit the observations: {error}") from error


def check_module_state(name: str, state: Any, module: th.nn.Module) -> None:
    """
    Require finite weights. Names and shapes are checked by torch.

    :param name: of the module, for the error
    :param state: its state dictionary
    :param module: the module that will load it
    :raises ValueError: if a weight is not finite, with its name
    """
    own = module.state_dict()
    for key, value in state.items():
        fits = isinstance(value, th.Tensor) and key in own and own[key].shape == value.shape
        if fits and not value.isfinite().all():
            raise ValueError(f"{name} must have finite weights, but {key!r} is not finite")


def check_optimizer_state(name: str, state: Any, optimizer: th.optim.Optimizer) -> None:
    """
    Require an optimiser's parameter groups, and finite tensors in the shapes of its parameters.

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
                    raise ValueError(f"{key!r} is {_short(value)}")
        shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
        for index, slot in slots.items():
            for key, value in slot.items():
                if isinstance(value, th.Tensor) and value.shape not in (shapes[index], ()):
                    raise ValueError(f"{key!r} of parameter {index} has shape {tuple(value.shape)}")
                if not th.as_tensor(value).isfinite().all():
                    raise ValueError(f"{key!r} of parameter {index} is not finite")
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} must be the state of the model's optimiser, but {error}") from error


def _is_option(value: Any, current: Any) -> bool:
    """True if a value can replace an option of an optimiser."""
    if isinstance(value, tuple | list):
        return isinstance(current, tuple | list) and len(value) == len(current) and all(map(_is_number, value))
    if _is_number(current):
        return _is_number(value) and bool(np.isfinite(value))
    return value is None or isinstance(value, bool) or _is_number(value)


class AllocationLimit(TorchFunctionMode):
    """
    Context in which torch makes no tensor of more than ``n_elements`` elements.

    It stops a file that describes a policy much larger than the weights in the file, before that takes up memory.

    :param n_elements: largest number of elements
    :raises ValueError: if a larger tensor is made
    """

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self._n_elements = n_elements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, th.Tensor) and out.numel() > self._n_elements:
            raise ValueError(f"a tensor of shape {tuple(out.shape)} is larger than all weights in the file")
        return out
