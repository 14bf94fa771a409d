"""Navigation2D for thousands of environments at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from sb3_bomrl.envs.navigation import action_space, move, observation_space, reward
from sb3_bomrl.envs.tasks import SquareTasks
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv, Ids


class NavigationVecEnv(BatchTaskVecEnv):
    """
    A batch of Navigation2D in vectorised NumPy, equal to as many single environments.

    :param n_envs: number of environments
    :param goal_half_width: goals are uniform in the square [-half_width, half_width]²
    :param horizon: steps per episode
    :param spec: Gymnasium's specification
    """

    def __init__(
        self,
        n_envs: int,
        goal_half_width: float = 0.5,
        horizon: int = 100,
        spec: EnvSpec | None = None,
    ) -> None:
        tasks = SquareTasks(goal_half_width)
        super().__init__(n_envs, observation_space(horizon), action_space(), tasks, horizon, spec=spec)

    def allocate_rows(self) -> None:
        """Make the positions and goals."""
        self._positions = np.zeros((self.num_envs, 2))
        self._goals = np.zeros((self.num_envs, 2))

    def reset_rows(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Go back to the origin."""
        self._positions[ids] = 0.0
        return self._positions[ids].astype(np.float32)

    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """Move all rows."""
        self._positions = move(self._positions, actions)
        return ArrayStep(self._positions.astype(np.float32), reward(self._positions, self._goals))

    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """Write goals, (x, y) each."""
        self._goals[ids] = np.array(tasks)[:, None]
