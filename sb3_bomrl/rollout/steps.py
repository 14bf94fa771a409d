"""One step of many environments: what it holds, who is told, and what can be wrong with it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_bomrl.types import Rollout, Task


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


class Hooks(NamedTuple):
    """
    What is told about a collection while it runs.

    :param on_start: before the first step of each wave
    :param on_step: after each vectorised step, with the step and its number; returns whether to go on
    :param on_end: after the last step of each wave, with its rollout
    """

    on_start: Callable[[], None] = lambda: None
    on_step: Callable[[Step, int], bool] = lambda step, number: True
    on_end: Callable[[Rollout], None] = lambda rollout: None


def check_finite(name: str, values: Any, tasks: Sequence[Task], step: int) -> None:
    r"""
    Stop at the first number that is not finite.

    :param name: what the values are
    :param values: (n_envs, \*shape), or a dictionary of such
    :param tasks: the tasks the environments play, each in equally many
    :param step: number of the step, for the error
    :raises FloatingPointError: that says which environment, task and step
    """
    if isinstance(values, dict):
        for key, value in values.items():
            check_finite(f"{name} {key!r}", value, tasks, step)
        return
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        index = int(np.argwhere(~np.isfinite(values))[0][0])
        task = tasks[index * len(tasks) // len(values)]
        raise FloatingPointError(
            f"{name} from environment {index} (task {task!r}) at step {step} is not finite: {values[index]}"
        )


def by_task(obs: Any, n_tasks: int) -> Any:
    """(n_envs, ...) -> (n_tasks, n_envs_per_task, ...), through dictionaries."""
    if isinstance(obs, dict):
        return {key: by_task(value, n_tasks) for key, value in obs.items()}
    return obs.reshape(n_tasks, -1, *obs.shape[1:])


def pick(obs: Any, index: int) -> Any:
    """One environment's observation, through dictionaries."""
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def stack_steps(observations: list[Any]) -> Any:
    """Observations of successive steps along a new leading axis, through dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


def truncations(number: int, step: Step) -> list[tuple[int, int, Any]]:
    """(step, environment, final observation) of the episodes that a time limit cut off at this step."""
    return [
        (number, int(i), step.infos[i]["terminal_observation"])
        for i in np.flatnonzero(step.dones)
        if step.infos[i].get("TimeLimit.truncated", False)
    ]


def shares(total: int, n_parts: int) -> np.ndarray:
    """Split ``total`` as evenly as possible."""
    return np.array([total // n_parts + (i < total % n_parts) for i in range(n_parts)])
