"""Checks of a model file from an untrusted source, made before its content is used."""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_bomrl.checks import short, shortened


def _is_class(base: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, base)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_observation(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray | dict)


def is_number(value: Any) -> bool:
    """
    Tell numbers from everything else, booleans too.

    :param value: anything
    :return: true for a number of Python's or NumPy's
    """
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return is_number(value) and bool(np.isfinite(float(value)))


def _is_step_size(value: Any) -> bool:
    return isinstance(value, _SCHEDULES) or value == "auto" or (_is_finite(value) and value >= 0)


def _are_episodes(value: Any) -> bool:
    def is_episode(one: Any) -> bool:
        return isinstance(one, dict) and all(_is_finite(one.get(key)) for key in ("r", "l"))

    return value is None or (isinstance(value, deque) and all(map(is_episode, value)))


def _are_successes(value: Any) -> bool:
    return value is None or (isinstance(value, deque) and all(isinstance(one, int | float) for one in value))


_SCHEDULES = (utils.FloatSchedule, utils.ConstantSchedule, utils.LinearSchedule)


_ACCEPTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "policy_class": ("a policy class", _is_class(ActorCriticPolicy)),
    "rollout_buffer_class": ("a rollout buffer class", lambda x: x is None or _is_class(RolloutBuffer)(x)),
    "observation_space": ("a space", lambda x: isinstance(x, spaces.Space)),
    "action_space": ("a space", lambda x: isinstance(x, spaces.Space)),
    "n_envs": ("an integer of at least 1", lambda x: _is_count(x) and x >= 1),
    "_stats_window_size": ("an integer of at least 1", lambda x: _is_count(x) and x >= 1),
    "tasks_per_chunk": ("None or an integer of at least 1", lambda x: x is None or (_is_count(x) and x >= 1)),
    "inner_target_kl": ("None or a finite number", lambda x: x is None or _is_finite(x)),
    "n_envs_per_task": ("None or an integer of at least 1", lambda x: x is None or (_is_count(x) and x >= 1)),
    "ridge_coef": ("None or a finite number", lambda x: x is None or _is_finite(x)),
    "seed": ("None or an integer", lambda x: x is None or (_is_count(x) and x < 2**32)),
    "sde_sample_freq": ("an integer", lambda x: type(x) is int),
    "verbose": ("an integer", lambda x: isinstance(x, int)),
    "start_time": ("a finite number", _is_finite),
    "action_noise": ("None", lambda x: x is None),
    "tensorboard_log": ("None or text", lambda x: x is None or isinstance(x, str)),
    "lr_schedule": ("a schedule", lambda x: isinstance(x, _SCHEDULES)),
    "ep_info_buffer": ("None or a deque of statistics of episodes", _are_episodes),
    "ep_success_buffer": ("None or a deque of numbers", _are_successes),
    "_last_obs": ("None or arrays", _is_observation),
    "_last_original_obs": ("None or arrays", _is_observation),
    "_last_episode_starts": ("None or an array", _is_observation),
    "_normalizer_statistics": ("None or a dictionary", lambda x: x is None or isinstance(x, dict)),
    "_algorithm_name": ("text", lambda x: isinstance(x, str)),
}
"""Settings whose accepted type does not follow from their value in a new model: the type in words, and its check."""

_STEP_SIZE = ("a finite number of at least 0, a schedule, or 'auto'", _is_step_size)
_MADE_LATER = ("observation_space", "action_space", "n_envs", "lr_schedule", "_algorithm_name")


def check_settings(
    settings: Mapping[str, Any],
    new: Mapping[str, Any],
    excluded: set[str],
    given: set[str],
    scheduled: Collection[str],
) -> None:
    """
    Require exactly the settings of a model of the class, each of its type.

    Ranges are checked when the model is set up.

    :param settings: from the file
    :param new: attributes of a model that was constructed but not set up
    :param excluded: attributes that are never saved
    :param given: settings that the caller gives; the file may lack them
    :param scheduled: settings that are step sizes or schedules of such
    :raises ValueError: if one is missing, unknown or of another type, with its name, value and what is accepted
    """
    accepted = ({*new, *_MADE_LATER}) - excluded
    unknown, missing = sorted(set(settings) - accepted - given), sorted(accepted - set(settings) - given)
    if unknown:
        raise ValueError(f"settings of the file must be those of the model, got also {_listed(unknown)}")
    if missing:
        raise ValueError(f"settings of the file must be complete, but {_listed(missing)} is missing")
    for name, value in settings.items():
        if name in given:
            continue
        words, fits = _STEP_SIZE if name in scheduled else _ACCEPTED[name] if name in _ACCEPTED else _like(new[name])
        if not fits(value):
            raise ValueError(f"setting {name!r} of the file must be {words}, got {short(value)}")


def _listed(names: list[str]) -> str:
    return shortened(", ".join(map(short, names[:100])), 300)


def _like(example: Any) -> tuple[str, Callable[[Any], bool]]:
    """The type accepted for a setting, in words, and its check, by the setting's value in a new model."""
    if type(example) is int:
        return "an integer of at least 0", _is_count
    if type(example) is float:
        return "a number", lambda x: is_number(x) and not np.isnan(float(x))
    if example is None:
        return "None", lambda x: x is None
    kind = type(example)
    return f"of type {kind.__name__}", lambda x: isinstance(x, kind)


def _is_part_of(shape: tuple[int, ...], whole: tuple[int, ...] | None) -> bool:
    """True for the whole, and for one of the frames that ``VecFrameStack`` around ``VecNormalize`` makes it of."""
    if whole is None or len(shape) != len(whole):
        return False
    return all(n > 0 and m % n == 0 for n, m in zip(shape, whole, strict=True))


def check_normalizer_statistics(statistics: Any, space: spaces.Space) -> None:
    """
    Require finite means, variances of at least 0 and counts, in the shapes of the observations or of frames of them.

    :param statistics: of a ``VecNormalize``, from the file; ``None`` is accepted
    :param space: observation space
    :raises ValueError: if they are not
    """
    if statistics is None:
        return
    try:
        own = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        parts = [(f"obs{key and f' {short(key)}'}", own[key].shape, rms) for key, rms in statistics["obs"].items()]
        for name, shape, rms in [*parts, ("returns", (), statistics["returns"])]:
            mean, var, count = (np.asarray(rms[field], dtype=np.float64) for field in ("mean", "var", "count"))
            if not _is_part_of(mean.shape, shape) or var.shape != mean.shape or count.shape != ():
                raise ValueError(f"those of {name} must have shape {shape}, got {mean.shape}")
            if not (np.isfinite([mean.sum(), var.sum(), count]).all() and (var >= 0).all() and count >= 0):
                raise ValueError(f"those of {name} must be finite numbers, the variance at least 0")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"normaliser statistics of the file do not fit the observations: {error}") from error
