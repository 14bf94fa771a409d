"""Returns and lengths of the episodes of a rollout, in the rewards that the environment gave."""

import numpy as np
import torch as th

from sb3_bomrl.types import Rollout


def episode_returns(rollout: Rollout) -> th.Tensor:
    """
    Compute the mean undiscounted return per episode.

    :param rollout: any; an episode that was cut off counts with its rewards so far
    :return: (n_tasks,)
    """
    n_episodes = (rollout.episode_starts & rollout.mask).sum((1, 2))
    return (rollout.true_rewards * rollout.mask).sum((1, 2)) / n_episodes


def returns_per_episode(rollout: Rollout, n_episodes: int) -> np.ndarray:
    """
    Compute the undiscounted return of every episode.

    :param rollout: whole episodes, equally many for every task
    :param n_episodes: episodes per task
    :return: (n_tasks, n_episodes)
    """
    return _sum_per_episode(rollout.true_rewards, rollout, n_episodes)


def lengths_per_episode(rollout: Rollout, n_episodes: int) -> np.ndarray:
    """
    Compute the length of every episode.

    :param rollout: whole episodes, equally many for every task
    :param n_episodes: episodes per task
    :return: (n_tasks, n_episodes), in steps
    """
    return _sum_per_episode(th.ones_like(rollout.rewards), rollout, n_episodes)


def _sum_per_episode(values: th.Tensor, rollout: Rollout, n_episodes: int) -> np.ndarray:
    values, starts = values.double() * rollout.mask, rollout.episode_starts & rollout.mask
    # number the episodes of a task from 0, environment by environment
    values, starts = (x.transpose(1, 2).flatten(1) for x in (values, starts))
    number = starts.long().cumsum(1) - 1
    return th.zeros(len(values), n_episodes, dtype=th.double).scatter_add_(1, number, values).numpy()
