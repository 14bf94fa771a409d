"""A point mass in the plane, whose goal is not observed."""

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.array_env import Advanced, Array, ArrayTaskEnv
from sb3_bomrl.envs.tasks import SquareTasks

MAX_SPEED = 0.1
"""Largest move per axis and step."""


class Navigation2DEnv(ArrayTaskEnv):
    """
    A point mass in the plane that starts at the origin; the goal, which is the task, is not observed.

    The observation is the position, (2,). The action is the velocity as a fraction of 0.1 per axis and step, clipped
    to [-1, 1]. The reward is minus the distance to the goal after the move. The episode never terminates.

    :param goal_half_width: goals are uniform in the square [-half_width, half_width]²; held-out goals are a 5×5 grid
    :param horizon: steps per episode
    :param task: first goal (x, y), ``None`` for the square's upper right corner
    """

    action_space = spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)

    def __init__(
        self,
        goal_half_width: float = 0.5,
        horizon: int = 100,
        task: tuple[float, float] | None = None,
    ) -> None:
        check_positive("horizon", horizon, integer=True)
        reach = MAX_SPEED * horizon  # within an episode
        self.observation_space = spaces.Box(-reach, reach, shape=(2,), dtype=np.float32)
        self.task_distribution = SquareTasks(goal_half_width)
        super().__init__(horizon, task)

    def start(self, rng: np.random.Generator) -> Array:
        """Return the origin."""
        return np.zeros(2)

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Move, then measure the distance."""
        positions = states + MAX_SPEED * actions
        offset = positions - tasks
        return positions, -np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2), None
