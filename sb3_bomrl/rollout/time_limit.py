"""The longest episode that is waited for."""

from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.types import Task

MAX_EPISODE_STEPS = 10_000
"""Longest episode where neither the user nor the environment sets a limit."""

_TIME_LIMIT = "_max_episode_steps"
"""Attribute of Gymnasium's ``TimeLimit``."""


def time_limit(env: VecEnv, max_episode_steps: int | None) -> int:
    """
    Return the number of steps after which an episode is given up.

    :param env: the environments
    :param max_episode_steps: the user's limit
    :return: that, else the environment's own time limit, else :data:`MAX_EPISODE_STEPS`
    """
    if max_episode_steps is not None:
        return max_episode_steps
    own = env.get_attr(_TIME_LIMIT, indices=[0])[0] if env.has_attr(_TIME_LIMIT) else None
    return int(own) if isinstance(own, int | np.integer) else MAX_EPISODE_STEPS


def check_episode_lengths(lengths: np.ndarray, limit: int, tasks: Sequence[Task]) -> None:
    """
    Require that no episode that is still played has reached the limit.

    :param lengths: (n_envs,) steps so far, 0 for an episode that has ended or does not count
    :param limit: from :func:`time_limit`
    :param tasks: the tasks that the environments play, each in equally many
    :raises ValueError: that says which environment and task
    """
    endless = np.flatnonzero(lengths >= limit)
    if len(endless) > 0:
        index = int(endless[0])
        task = tasks[index * len(tasks) // len(lengths)]
        raise ValueError(
            f"an episode in environment {index} (task {task!r}) did not end within "
            f"max_episode_steps={limit} steps: give the environment a time limit, or raise max_episode_steps"
        )
