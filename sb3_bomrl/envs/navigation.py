"""A point mass in the plane, whose goal is not observed."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.base import TaskEnv
from sb3_bomrl.envs.tasks import SquareTasks
from sb3_bomrl.types import Task

MAX_SPEED = 0.1
"""Largest move per axis and step."""

Array = npt.NDArray[np.float64]


def move(positions: Array, actions: npt.NDArray) -> Array:
    """
    Compute one step of the dynamics, ``position + 0.1 clip(action, -1, 1)``.

    :param positions: (n, 2)
    :param actions: (n, 2)
    :return: new positions, (n, 2)
    """
    return positions + MAX_SPEED * np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)


def reward(positions: Array, goals: Array) -> Array:
    """
    Compute the reward, minus the Euclidean distance to the goal.

    :param positions: (n, 2), after the move
    :param goals: (n, 2)
    :return: (n,)
    """
    offset = positions - goals
    return -np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)


def observation_space(horizon: int) -> spaces.Box:
    """
    Return the space of positions that can be reached within an episode.

    :param horizon: steps per episode
    :raises ValueError: if it is not a positive integer
    """
    check_positive("horizon", horizon, integer=True)
    reach = MAX_SPEED * horizon
    return spaces.Box(-reach, reach, shape=(2,), dtype=np.float32)


def action_space() -> spaces.Box:
    """Return the space of velocities, as fractions of the largest."""
    return spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)


class Navigation2DEnv(TaskEnv, gym.Env[npt.NDArray, npt.NDArray]):
    """
    A point mass in the plane that starts at the origin; the goal, which is the task, is not observed.

    The observation is the position, (2,). The action is the velocity as a fraction of 0.1 per axis and step, clipped
    to [-1, 1]. The reward is minus the distance to the goal after the move. The episode never terminates.

    :param goal_half_width: goals are uniform in the square [-half_width, half_width]²; held-out goals are a 5×5 grid
    :param horizon: steps per episode
    :param task: first goal (x, y), ``None`` for the square's upper right corner
    """

    metadata = {"render_modes": []}
    render_mode = None

    def __init__(
        self,
        goal_half_width: float = 0.5,
        horizon: int = 100,
        task: tuple[float, float] | None = None,
    ) -> None:
        self.observation_space = observation_space(horizon)
        self.horizon = int(horizon)
        self.action_space = action_space()
        self._position = np.zeros((1, 2))
        self._n_elapsed = 0
        self._init_tasks(SquareTasks(goal_half_width), task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Go back to the origin."""
        super().reset(seed=seed, options=options)
        self._seed_tasks_on_reset(seed)
        self._position = np.zeros((1, 2))
        self._n_elapsed = 0
        return self._observation(), {"task": self._task}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move, then measure the distance."""
        self._position = move(self._position, np.asarray(action)[None])
        self._n_elapsed += 1
        distance_reward = float(reward(self._position, self._goal)[0])
        return self._observation(), distance_reward, False, self._n_elapsed >= self.horizon, {"task": self._task}

    def _observation(self) -> npt.NDArray[np.float32]:
        return self._position[0].astype(np.float32)

    def _apply_task(self, task: Task) -> None:
        self._goal = np.array([task], dtype=np.float64)
