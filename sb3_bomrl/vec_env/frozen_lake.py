"""Thousands of Frozen Lakes in one NumPy step."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_bomrl.envs.frozen_lake import (
    LAKE_HORIZON,
    N_ACTIONS,
    SLIPS,
    LakeTasks,
    draw_slips,
    lake_dynamics,
)
from sb3_bomrl.tabular.lakes import LAKE_GAMMA, LAKE_PENALTY, LAKE_SIZE
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv, Ids


class FrozenLakeVecEnv(BatchTaskVecEnv):
    """
    A batch of Frozen Lakes, each with its own layout; bit-equal to as many single environments with the same seeds.

    :param n_envs: number of environments
    :param family: ``"high_variance"`` or ``"low_variance"``
    :param is_slippery: whether a move goes astray to either side with probability 1/3 each
    :param penalty: reward of a step that ends on a penalty cell
    :param n_train_tasks: number of training layouts, and of held-out ones
    :param map_seed: seed from which the layouts are drawn
    :param size: side of the square map
    :param horizon: steps per episode
    :param spec: Gymnasium's specification, for ``get_attr("spec")``
    """

    gamma = LAKE_GAMMA

    def __init__(
        self,
        n_envs: int,
        family: str = "high_variance",
        is_slippery: bool = False,
        penalty: float = LAKE_PENALTY,
        n_train_tasks: int = 20,
        map_seed: int = 0,
        size: int = LAKE_SIZE,
        horizon: int = LAKE_HORIZON,
        spec: EnvSpec | None = None,
    ) -> None:
        tasks = LakeTasks(family, n_train_tasks, map_seed, size)
        self.is_slippery, self.penalty, self._n_states = bool(is_slippery), float(penalty), size * size
        super().__init__(n_envs, spaces.Discrete(size * size), spaces.Discrete(N_ACTIONS), tasks, horizon, None, spec)

    def allocate_rows(self) -> None:
        """Make the tables of the layouts, and the states."""
        n_envs = self.num_envs
        self._moves = np.zeros((n_envs, self._n_states, N_ACTIONS), dtype=np.int64)
        self._rewards = np.zeros((n_envs, self._n_states))
        self._starts, self._states = np.zeros((2, n_envs), dtype=np.int64)
        self._slips = np.ones((n_envs, self.horizon), dtype=np.int64)

    def reset_rows(self, ids: Ids) -> npt.NDArray[np.int64]:
        """
        Go back to the start, and draw the slips of the next episode where the lake is slippery.

        :param ids: rows
        :return: first observations, (len(ids),)
        """
        self._states[ids] = self._starts[ids]
        if self.is_slippery:
            for i in ids:
                self._slips[i] = draw_slips(self.views[i].np_random, self.horizon)
        return self._starts[ids]

    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """
        Move everywhere.

        :param actions: (n_envs,)
        :return: cells and rewards, (n_envs,)
        """
        directions = np.asarray(actions, dtype=np.int64)
        if self.is_slippery:
            directions = SLIPS[directions, self._slips[self._all_ids, self._n_elapsed]]
        self._states = self._moves[self._all_ids, self._states, directions]
        return ArrayStep(self._states.copy(), self._rewards[self._all_ids, self._states])

    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """
        Write layouts into the tables.

        :param ids: rows of each layout, (n_tasks, n_repeats)
        :param tasks: layouts
        """
        dynamics = [lake_dynamics(layout, self.penalty) for layout in tasks]
        self._moves[ids] = np.array([one.moves for one in dynamics])[:, None]
        self._rewards[ids] = np.array([one.rewards for one in dynamics])[:, None]
        self._starts[ids] = np.array([one.start for one in dynamics])[:, None]
