"""From arrays in SB3's layout, (n_steps, n_envs, ...), to rollouts, (n_tasks, n_steps, n_envs, ...)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.types import Rollout, map_observations

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
    Arrange the arrays of one wave by tasks, as views where possible.

    :param arrays: ``observations``, ``actions``, ``log_probs``, ``rewards``, ``true_rewards``, each (n_steps, n_envs,
        \*shape)
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
        true_rewards=_by_task(arrays["true_rewards"], n_tasks),
    )


def _by_task(array: Any, n_tasks: int) -> Any:
    """(n_steps, n_envs, ...) -> (n_tasks, n_steps, n_envs_per_task, ...), a view."""

    def arrange(x: np.ndarray) -> th.Tensor:
        return th.from_numpy(x).reshape(len(x), n_tasks, -1, *x.shape[2:]).transpose(0, 1)

    return map_observations(arrange, array)


def _actions(actions: th.Tensor, space: spaces.Space) -> th.Tensor:
    """Actions in the shape and type in which the action distribution samples them."""
    if isinstance(space, spaces.Discrete):
        return actions.reshape(*actions.shape[:3]).long()
    if isinstance(space, spaces.MultiDiscrete):
        return actions.long()
    return actions.float()


def _final(observations: list[Any], like: Any) -> Any:
    """Stack final observations in the type of ``like``, (n_steps, n_envs, ...)."""

    def stack(like: np.ndarray, *observations: Any) -> th.Tensor:
        return th.from_numpy(np.array(observations, dtype=like.dtype).reshape(len(observations), *like.shape[2:]))

    return map_observations(stack, like, *observations)


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """
    Join waves along the task axis, padding the shorter ones at the end.

    :param rollouts: rollouts with equal numbers of environments per task
    :return: one rollout
    """
    if len(rollouts) == 1:
        return rollouts[0]
    n_steps = max(rollout.rewards.shape[1] for rollout in rollouts)
    fields = {name: [getattr(rollout, name) for rollout in rollouts] for name in Rollout._fields}
    final = fields.pop("final_observations")
    padded = {
        name: [map_observations(lambda x: _pad(x, n_steps), part) for part in parts] for name, parts in fields.items()
    }
    return Rollout(final_observations=_join(final), **{name: _join(parts) for name, parts in padded.items()})


def _join(parts: list[Any]) -> Any:
    return map_observations(lambda *x: th.cat(x), *parts)


def _pad(tensor: th.Tensor, n_steps: int) -> th.Tensor:
    missing = n_steps - tensor.shape[1]
    if missing == 0:
        return tensor
    return th.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)
