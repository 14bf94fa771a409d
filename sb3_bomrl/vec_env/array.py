"""Thousands of environments of an array family at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sb3_bomrl.envs.array_env import ArrayRows, ArrayTaskEnv
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv, Ids, ObsArrays


class ArrayTaskVecEnv(BatchTaskVecEnv):
    """
    A batch of an :class:`~sb3_bomrl.envs.array_env.ArrayTaskEnv`, equal to as many single environments.

    :param env: one environment of the family, whose horizon, task and specification the others share; it is not stepped
    :param n_envs: number of environments
    """

    def __init__(self, env: ArrayTaskEnv, n_envs: int) -> None:
        self._env = env
        tasks = env.task_distribution
        super().__init__(n_envs, env.observation_space, env.action_space, tasks, env.horizon, spec=env.spec)
        self.set_tasks([env.get_task()], n_repeats=self.num_envs)

    def allocate_rows(self) -> None:
        """Make the arrays of states and tasks."""
        self._rows = ArrayRows(self._env, self.num_envs)

    def reset_rows(self, ids: Ids) -> ObsArrays:
        """Draw first states, each from its environment's generator."""
        return self._rows.start(ids, [self.views[i].np_random for i in ids.tolist()])

    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """Step all rows."""
        return ArrayStep(*self._rows.advance(np.asarray(actions)))

    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """Write tasks as numbers."""
        self._rows.set_tasks(ids, tasks)
