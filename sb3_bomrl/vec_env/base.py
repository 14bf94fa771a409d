"""An SB3 ``VecEnv`` whose environments are rows of arrays: everything but the arrays."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.envs.tasks import TaskDistribution
from sb3_bomrl.types import Task, map_observations
from sb3_bomrl.vec_env.env_view import EnvView

_logger = logging.getLogger("sb3_bomrl")

ObsArrays: TypeAlias = Any
"""Observations of rows, (n, \\*shape), or a dictionary of such for ``spaces.Dict``."""

Ids = npt.NDArray[np.intp]


class ArrayStep(NamedTuple):
    """
    Arrays of one step of the whole batch.

    :param obs: observations after the step, before any reset, (n_envs, \\*shape), or a dictionary of such
    :param rewards: (n_envs,)
    :param terminated: (n_envs,), true where the MDP ended; ``None`` if it never does
    :param diverged: (n_envs,), true where the simulation broke down; ``None`` if it cannot
    """

    obs: ObsArrays
    rewards: npt.NDArray
    terminated: npt.NDArray[np.bool_] | None = None
    diverged: npt.NDArray[np.bool_] | None = None


class BatchTaskVecEnv(VecEnv):
    """
    Base class of the fast vectorised environments, each environment with its own task.

    It implements the ``VecEnv`` contract: seeds, automatic resets, ``terminal_observation``, ``TimeLimit.truncated``,
    ``env_method`` and ``get_attr``, and tasks. A family supplies array functions:

    - :meth:`reset_rows` starts new episodes in some rows,
    - :meth:`step_rows` steps all rows,
    - :meth:`apply_tasks` writes tasks into arrays,
    - :meth:`info_columns`, optionally: arrays that the infos of finished episodes carry,
    - :meth:`allocate_rows`, optionally: makes the arrays, once ``num_envs`` is known,
    - :meth:`render_row`, optionally: an image of one row.

    The constructor allocates, then applies the family's default task to every row.

    The info of a step is ``{"task": ..., "TimeLimit.truncated": ...}``; where an episode ends it also has
    ``terminal_observation``, the family's columns, and ``diverged`` if the simulation broke down.

    :param n_envs: number of environments
    :param observation_space: of one environment
    :param action_space: of one environment
    :param task_distribution: the family's tasks
    :param horizon: steps per episode
    :param render_mode: ``"rgb_array"`` or ``None``
    :param spec: Gymnasium's specification, for ``get_attr("spec")``
    :raises ValueError: if ``n_envs`` or ``horizon`` is not a positive integer, or the render mode is unknown
    """

    def __init__(
        self,
        n_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        task_distribution: TaskDistribution,
        horizon: int,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        check_positive("n_envs", n_envs, integer=True)
        check_positive("horizon", horizon, integer=True)
        check_choice("render_mode", render_mode, (None, "rgb_array"))
        self.num_envs = int(n_envs)
        self.observation_space, self.action_space = observation_space, action_space
        self.horizon = int(horizon)
        self.env_render_mode = render_mode
        self.spec = spec
        self.task_distribution = task_distribution
        self.n_diverged = self._n_reported = 0
        self.before_resets: list[Callable[[Ids], None]] = []
        self.views = [EnvView(self, i) for i in range(self.num_envs)]
        self._all_ids = np.arange(self.num_envs)
        self._n_elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._tasks: list[Task] = [task_distribution.default] * self.num_envs
        self._actions: npt.NDArray | None = None
        self._is_reset = False
        super().__init__(self.num_envs, observation_space, action_space)
        self.allocate_rows()
        self.apply_tasks(self._all_ids[None], [task_distribution.default])

    # ------------------------------------------------------------------ what a family supplies
    def allocate_rows(self) -> None:
        """Make the arrays of ``num_envs`` rows; the constructor calls it before it applies the first tasks."""

    @abstractmethod
    def reset_rows(self, ids: Ids) -> ObsArrays:
        """
        Start new episodes; random numbers come from ``self.views[i].np_random``.

        :param ids: rows, increasing
        :return: their first observations, (len(ids), \\*shape), or a dictionary of such
        """

    @abstractmethod
    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """
        Step every row.

        :param actions: (n_envs, \\*shape)
        :return: new arrays, not views of the state
        """

    @abstractmethod
    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """
        Write tasks into the family's arrays.

        :param ids: rows of each task, (n_tasks, n_repeats), in any order
        :param tasks: n_tasks of them, in canonical form
        """

    def info_columns(self) -> dict[str, npt.NDArray]:
        """
        Return arrays of the last step for the infos of episodes that end.

        :return: (n_envs,) each, by name
        """
        return {}

    def reset_info(self, index: int) -> dict[str, Any]:
        """
        Return the info of a reset, without the task.

        :param index: the row
        """
        return {}

    def render_row(self, index: int) -> npt.NDArray[np.uint8]:
        """
        Return an image of one row.

        :param index: the row
        """
        raise NotImplementedError(f"{type(self).__name__} cannot render")

    # ------------------------------------------------------------------ tasks
    def set_tasks(self, tasks: Sequence[Task], n_repeats: int = 1, indices: Iterable[int] | None = None) -> None:
        """
        Give environments their tasks, all at once and with immediate effect.

        :param tasks: each one is for ``n_repeats`` neighbouring environments
        :param n_repeats: environments per task
        :param indices: the environments, in the order of the tasks; ``None`` for all
        :raises ValueError: if tasks and environments do not match in number, or one is not a task of the family
        """
        ids = self._all_ids if indices is None else np.asarray(list(indices), dtype=np.intp)
        if len(tasks) * n_repeats != len(ids):
            raise ValueError(
                f"len(tasks) * n_repeats must be the number of environments, {len(ids)}, got {len(tasks)} * {n_repeats}"
            )
        checked = [self.task_distribution.check(task) for task in tasks]
        rows = ids.reshape(len(checked), n_repeats)
        for task, own in zip(checked, rows.tolist(), strict=True):
            for i in own:
                self._tasks[i] = task
        self.apply_tasks(rows, checked)

    def get_tasks(self) -> list[Task]:
        """Return the task of every environment."""
        return list(self._tasks)

    def get_task(self, index: int) -> Task:
        """Return the task of one environment."""
        return self._tasks[index]

    # ------------------------------------------------------------------ VecEnv
    def reset(self) -> ObsArrays:
        """Start a new episode everywhere."""
        for view, seed in zip(self.views, self._seeds, strict=True):
            view.on_reset(seed)
        self._reset_seeds()
        self._reset_options()
        self._n_elapsed[:] = 0
        obs = self.reset_rows(self._all_ids)
        self._is_reset = True
        for i in range(self.num_envs):
            self.reset_infos[i] = {"task": self._tasks[i], **self.reset_info(i)}
        return obs

    def step_async(self, actions: npt.NDArray) -> None:
        """
        Take the actions of the next :meth:`step_wait`.

        :param actions: (n_envs, \\*shape)
        :raises ValueError: if they have another shape
        :raises RuntimeError: before the first reset
        """
        if not self._is_reset:
            raise RuntimeError("call reset() before step()")
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if np.shape(actions) != expected:
            raise ValueError(f"actions must have shape {expected}, got {np.shape(actions)}")
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment and reset those whose episode ended."""
        assert self._actions is not None
        result = self.step_rows(self._actions)
        self._n_elapsed += 1
        truncated = self._n_elapsed >= self.horizon
        dones = truncated
        if result.terminated is not None:
            dones = truncated | result.terminated
            truncated = truncated & ~result.terminated
        if result.diverged is not None and result.diverged.any():
            self.n_diverged += int(result.diverged.sum())
            dones, truncated = dones | result.diverged, truncated | result.diverged
        infos: list[dict[str, Any]] = [{"task": task, "TimeLimit.truncated": False} for task in self._tasks]
        if dones.any():
            self._finish(np.flatnonzero(dones), result, truncated, infos)
        return result.obs, result.rewards.astype(np.float32), dones, infos

    def report_diverged(self) -> None:
        """Log how many simulations have diverged since the last report, in one line; nothing where none has."""
        n_new = self.n_diverged - self._n_reported
        if n_new:
            self._n_reported = self.n_diverged
            _logger.warning("%d simulations diverged and were reset, %d in all", n_new, self.n_diverged)

    def _finish(
        self, ids: Ids, result: ArrayStep, truncated: npt.NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> None:
        """Complete the infos of the episodes that ended, and start the next ones in ``result.obs``."""
        columns = {name: column[ids].tolist() for name, column in self.info_columns().items()}
        last = map_observations(itemgetter(ids), result.obs)
        rows = ids.tolist()
        for k, i in enumerate(rows):
            info = infos[i]
            info["TimeLimit.truncated"] = bool(truncated[i])
            info["terminal_observation"] = map_observations(itemgetter(k), last)
            if result.diverged is not None and result.diverged[i]:
                info["diverged"] = True
            else:
                info.update((name, column[k]) for name, column in columns.items())
        self._n_elapsed[ids] = 0
        for call in self.before_resets:  # a wrapper that chooses the next episodes' tasks
            call(ids)
        map_observations(partial(_write_rows, ids), result.obs, self.reset_rows(ids))
        for i in rows:
            self.reset_infos[i] = {"task": self._tasks[i], **self.reset_info(i)}

    def close(self) -> None:
        """Log the simulations that have diverged since the last report; there is nothing to release."""
        self.report_diverged()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of the environments, see :class:`~sb3_bomrl.vec_env.env_view.EnvView`."""
        return [getattr(self.views[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments; those that the batch shares are read-only."""
        for i in self._get_indices(indices):
            setattr(self.views[i], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the environments, see :class:`~sb3_bomrl.vec_env.env_view.EnvView`."""
        return [getattr(self.views[i], method_name)(*method_args, **kwargs) for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return ``False`` for each: no environment of a batch is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def render_one(self, index: int) -> npt.NDArray[np.uint8] | None:
        """
        Return an image of one environment.

        :param index: the environment
        :return: (height, width, 3); ``None`` unless the render mode is ``"rgb_array"``
        """
        return self.render_row(index) if self.env_render_mode == "rgb_array" else None

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return images of all environments."""
        return [self.render_one(i) for i in range(self.num_envs)]


def _write_rows(ids: Ids, array: npt.NDArray, rows: npt.NDArray) -> None:
    array[ids] = rows
