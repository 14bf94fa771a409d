"""One step of many environments, and helpers on its arrays."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_bomrl.types import Rollout, Task, map_observations, observation_parts


class StopCollection(Exception):
    """A callback asked to stop."""


class Step(NamedTuple):
    """
    One step of all environments.

    :param obs: what the policy saw, (n_envs, \\*obs_shape) or a dictionary of such
    :param actions: (n_envs, \\*action_shape), as sampled
    :param clipped_actions: (n_envs, \\*action_shape), as performed
    :param log_probs: (n_envs,) tensor
    :param episode_starts: (n_envs,) bool
    :param new_obs: observations after the step (after the reset where an episode ended)
    :param rewards: (n_envs,)
    :param dones: (n_envs,) bool
    :param infos: one dictionary per environment
    :param true_rewards: (n_envs,), before ``VecNormalize`` scaled them
    """

    obs: Any
    actions: np.ndarray
    clipped_actions: np.ndarray
    log_probs: th.Tensor
    episode_starts: np.ndarray
    new_obs: Any
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]
    true_rewards: np.ndarray


class Hooks(NamedTuple):
    """
    Functions that a collection calls while it runs.

    :param on_start: before the first step of each wave
    :param on_step: after each vectorised step, with the step and its number; returns whether to go on
    :param on_end: after the last step of each wave, with its rollout
    """

    on_start: Callable[[], None] = lambda: None
    on_step: Callable[[Step, int], bool] = lambda step, number: True
    on_end: Callable[[Rollout], None] = lambda rollout: None


def check_finite(name: str, values: Any, tasks: Sequence[Task], step: int) -> None:
    r"""
    Require finite numbers.

    :param name: name of the values in the error
    :param values: (n_envs, \*shape), or a dictionary of such
    :param tasks: the tasks that the environments play, each in equally many
    :param step: number of the step, for the error
    :raises FloatingPointError: that says which environment, task and step
    """
    _check_finite(name, values, tasks, step, range(len(observation_parts(values)[0])))


def check_final_observations(step: Step, tasks: Sequence[Task], number: int) -> None:
    """
    Require finite final observations of the episodes that a time limit cut off, which values are bootstrapped from.

    :param step: the step
    :param tasks: the tasks that the environments play, each in equally many
    :param number: number of the step, for the error
    :raises FloatingPointError: that says which environment, task and step
    """
    n_envs = len(step.dones)
    for _, index, final in truncations(number, step):
        task = tasks[index * len(tasks) // n_envs]
        one = map_observations(lambda x: np.asarray(x)[None], final)
        _check_finite("final observation", one, [task], number, [index])


def _check_finite(name: str, values: Any, tasks: Sequence[Task], step: int, environments: Sequence[int]) -> None:
    if isinstance(values, dict):
        for key, value in values.items():
            _check_finite(f"{name} {key!r}", value, tasks, step, environments)
        return
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        task = tasks[row * len(tasks) // len(values)]
        raise FloatingPointError(
            f"{name} from environment {environments[row]} (task {task!r}) at step {step} is not finite: {values[row]}"
        )


def by_task(obs: Any, n_tasks: int) -> Any:
    """
    Arrange observations by tasks.

    :param obs: (n_envs, ...), or a dictionary of such; environments of one task are neighbours
    :param n_tasks: number of tasks
    :return: (n_tasks, n_envs_per_task, ...), or a dictionary of such
    """
    return map_observations(lambda x: x.reshape(n_tasks, -1, *x.shape[1:]), obs)


def pick(obs: Any, index: int) -> Any:
    """
    Return one environment's observation.

    :param obs: (n_envs, ...), or a dictionary of such
    :param index: which environment
    :return: (...), or a dictionary of such
    """
    return map_observations(lambda x: x[index], obs)


def stack_steps(observations: list[Any]) -> Any:
    """
    Stack observations of successive steps.

    :param observations: (n_envs, ...) each, or dictionaries of such
    :return: (n_steps, n_envs, ...), or a dictionary of such
    """
    return map_observations(lambda *x: np.stack(x), *observations)


def truncations(number: int, step: Step) -> list[tuple[int, int, Any]]:
    """
    List the episodes that a time limit cut off at a step.

    :param number: number of the step
    :param step: the step
    :return: (step, environment, final observation) each
    """
    return [
        (number, int(i), step.infos[i]["terminal_observation"])
        for i in np.flatnonzero(step.dones)
        if step.infos[i].get("TimeLimit.truncated", False)
    ]


def shares(total: int, n_parts: int) -> np.ndarray:
    """
    Split a number as evenly as possible.

    :param total: the number
    :param n_parts: into how many
    :return: (n_parts,), the larger parts first
    """
    return np.array([total // n_parts + (i < total % n_parts) for i in range(n_parts)])
