"""From arrays in SB3's layout, (n_steps, n_envs, ...), to rollouts, (n_tasks, n_steps, n_envs, ...)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.types import Rollout

Cut = tuple[int, int, Any]
"""(step, environment, final observation) of an episode that was cut off."""


def assemble(
    arrays: dict[str, Any],
    episode_starts: np.ndarray,
    episode_ends: np.ndarray,
    cuts: Sequence[Cut],
    n_tasks: int,
    env: VecEnv,
    mask: np.ndarray | None = None,
) -> Rollout:
    r"""
    Arrange one wave by tasks, as views where possible.

    :param arrays: ``observations``, ``actions``, ``log_probs``, ``rewards``, each (n_steps, n_envs, \*shape)
    :param episode_starts: (n_steps, n_envs) bool
    :param episode_ends: (n_steps, n_envs) bool
    :param cuts: episodes that ended without terminating
    :param n_tasks: number of tasks; environments of one task are neighbours
    :param env: gives the spaces
    :param mask: (n_steps, n_envs) bool, the steps that count; all if not given
    :return: rollout with advantages 0
    """
    truncated = np.zeros_like(episode_ends)
    n_envs_per_task = episode_ends.shape[1] // n_tasks
    # row-major order of the (task, step, environment) mask
    cuts = sorted(cuts, key=lambda cut: (cut[1] // n_envs_per_task, cut[0], cut[1]))
    for step, index, _ in cuts:
        truncated[step, index] = True
    rewards = _by_task(arrays["rewards"], n_tasks)
    return Rollout(
        observations=_by_task(arrays["observations"], n_tasks),
        actions=_actions(_by_task(arrays["actions"], n_tasks), env.action_space),
        log_probs=_by_task(arrays["log_probs"], n_tasks),
        rewards=rewards,
        episode_starts=_by_task(episode_starts, n_tasks),
        episode_ends=_by_task(episode_ends, n_tasks),
        truncated=_by_task(truncated, n_tasks),
        final_observations=_final([obs for _, _, obs in cuts], arrays["observations"]),
        mask=_by_task(np.ones_like(episode_ends) if mask is None else mask, n_tasks),
        advantages=th.zeros_like(rewards),
    )


def _by_task(array: Any, n_tasks: int) -> Any:
    """(n_steps, n_envs, ...) -> (n_tasks, n_steps, n_envs_per_task, ...), a view."""
    if isinstance(array, dict):
        return {key: _by_task(value, n_tasks) for key, value in array.items()}
    tensor = th.from_numpy(array)
    return tensor.reshape(len(array), n_tasks, -1, *array.shape[2:]).transpose(0, 1)


def _actions(actions: th.Tensor, space: spaces.Space) -> th.Tensor:
    """In the shape and type in which the action distribution samples them."""
    if isinstance(space, spaces.Discrete):
        return actions.reshape(*actions.shape[:3]).long()
    if isinstance(space, spaces.MultiDiscrete):
        return actions.long()
    return actions.float()


def _final(observations: list[Any], like: Any) -> Any:
    if isinstance(like, dict):
        return {key: _final([obs[key] for obs in observations], value) for key, value in like.items()}
    stacked = np.array(observations, dtype=like.dtype).reshape(len(observations), *like.shape[2:])
    return th.from_numpy(stacked)


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """
    Join waves along the task axis, padding the shorter ones at the end.

    :param rollouts: rollouts with equal numbers of environments per task
    :return: one rollout
    """
    if len(rollouts) == 1:
        return rollouts[0]
    n_steps = max(rollout.rewards.shape[1] for rollout in rollouts)
    joined = {
        name: _join([getattr(rollout, name) for rollout in rollouts], n_steps)
        for name in Rollout._fields
        if name != "final_observations"
    }
    return Rollout(final_observations=_join([rollout.final_observations for rollout in rollouts], None), **joined)


def _join(parts: list[Any], n_steps: int | None) -> Any:
    if isinstance(parts[0], dict):
        return {key: _join([part[key] for part in parts], n_steps) for key in parts[0]}
    if n_steps is not None:
        parts = [_pad(part, n_steps) for part in parts]
    return th.cat(parts)


def _pad(tensor: th.Tensor, n_steps: int) -> th.Tensor:
    missing = n_steps - tensor.shape[1]
    if missing == 0:
        return tensor
    return th.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)
