"""Task families whose dynamics are array functions: written once, for one environment and for thousands."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.base import TaskEnv
from sb3_bomrl.envs.tasks import TaskDistribution
from sb3_bomrl.types import Task, map_observations

Array = npt.NDArray[np.float64]

Observed = Any
"""Observations of n environments, (n, \\*shape), or a dictionary of such for ``spaces.Dict``."""

Advanced = tuple[Array, Array, npt.NDArray[np.bool_] | None]
"""New states (n, n_state), rewards (n,), and where the MDP ended, (n,) or ``None`` if it never does."""


class ArrayTaskEnv(TaskEnv, gym.Env[Any, Any]):
    """
    Base class of task families that are a few lines of NumPy.

    A subclass has the four attributes, :meth:`start` and :meth:`advance`, and :meth:`observe` where the
    observation is not the state. These are pure functions of arrays, with one row per environment. The class itself is
    a Gymnasium environment, a batch of one; :class:`~sb3_bomrl.vec_env.array.ArrayTaskVecEnv` is any number of them.

    States and tasks are rows of floats: the task of a family is a number, or a tuple of numbers. Episodes end after
    ``horizon`` steps, as truncated.

    :param horizon: steps per episode, ``None`` for the family's
    :param task: first task, ``None`` for the family's default
    """

    metadata = {"render_modes": []}
    render_mode = None

    observation_space: spaces.Space
    """Of one environment; each environment has its own copy."""

    action_space: spaces.Space
    """Of one environment; actions are clipped to a ``Box``."""

    task_distribution: TaskDistribution
    """The tasks, for example :class:`~sb3_bomrl.envs.drawn_tasks.DrawnTasks`."""

    horizon: int
    """Steps per episode."""

    def __init__(self, horizon: int | None = None, task: Task = None) -> None:
        check_positive("horizon", horizon, integer=True, optional=True)
        self.horizon = self.horizon if horizon is None else int(horizon)
        self.observation_space, self.action_space = deepcopy(self.observation_space), deepcopy(self.action_space)
        self._rows = ArrayRows(self, 1)
        self._n_elapsed = 0
        self._init_tasks(self.task_distribution, task)

    # ------------------------------------------------------------------ what a family supplies
    @abstractmethod
    def start(self, rng: np.random.Generator) -> npt.ArrayLike:
        """
        Draw the first state of an episode.

        :param rng: the environment's generator, the only source of randomness
        :return: (n_state,)
        """

    @abstractmethod
    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """
        Compute one step of every environment, each from its own row.

        :param states: (n, n_state), not to be changed in place
        :param actions: (n, \\*shape), floats within a ``Box`` or integers
        :param tasks: (n, n_numbers)
        :return: new states (n, n_state), rewards (n,), and where the MDP ended, (n,) or ``None`` if it never does
        """

    def observe(self, states: Array) -> Observed:
        """
        Return what is seen of states, by default all.

        :param states: (n, n_state)
        :return: new arrays in the type of the space: (n, \\*shape), or a dictionary of such for ``spaces.Dict``
        """
        return states.astype(np.float32, order="C")

    # ------------------------------------------------------------------ a batch of one
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        self._seed_tasks_on_reset(seed)
        self._n_elapsed = 0
        return _only_row(self._rows.start([0], [self.np_random])), {"task": self._task}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment."""
        obs, rewards, terminated = self._rows.advance(np.asarray(action)[None])
        self._n_elapsed += 1
        ended = terminated is not None and bool(terminated[0])
        truncated = self._n_elapsed >= self.horizon
        return _only_row(obs), float(rewards[0]), ended, truncated, {"task": self._task}

    def _apply_task(self, task: Task) -> None:
        self._rows.set_tasks(np.array([[0]]), [task])


class ArrayRows:
    """
    The states and tasks of some environments of a family.

    Columns are contiguous, so that a row's results do not depend on the number of rows.

    :param env: the family
    :param n_rows: number of environments
    """

    def __init__(self, env: ArrayTaskEnv, n_rows: int) -> None:
        self._env = env
        space = env.action_space
        self._limits: tuple[Array, Array] | None = None
        if isinstance(space, spaces.Box):
            self._limits = space.low.astype(np.float64), space.high.astype(np.float64)
        first = np.asarray(env.start(np.random.default_rng(0)), dtype=np.float64)
        self._states = np.zeros((n_rows, len(first)), order="F")
        self._tasks = np.zeros((n_rows, np.size(env.task_distribution.default)), order="F")

    def set_tasks(self, ids: npt.NDArray[np.intp], tasks: Sequence[Task]) -> None:
        """
        Write tasks.

        :param ids: rows of each task, (n_tasks, n_repeats)
        :param tasks: n_tasks of them, in canonical form
        """
        self._tasks[ids] = np.array(tasks, dtype=np.float64).reshape(len(tasks), 1, -1)

    def start(self, ids: Sequence[int] | npt.NDArray[np.intp], rngs: Sequence[np.random.Generator]) -> Observed:
        """
        Start episodes.

        :param ids: rows
        :param rngs: generator of each
        :return: first observations, (len(ids), \\*shape)
        """
        states = np.array([self._env.start(rng) for rng in rngs], dtype=np.float64)
        self._states[ids] = states
        return self._env.observe(np.asfortranarray(states))

    def advance(self, actions: npt.NDArray) -> tuple[Observed, Array, npt.NDArray[np.bool_] | None]:
        """
        Step every row.

        :param actions: (n_rows, \\*shape)
        :return: observations, rewards, and where the MDP ended
        :raises ValueError: if the family's arrays have other shapes
        """
        if self._limits is not None:
            actions = actions.clip(*self._limits)
        states, rewards, terminated = self._env.advance(self._states, actions, self._tasks)
        for name, array, shape in (("states", states, self._states.shape), ("rewards", rewards, (len(states),))):
            if array.shape != shape:
                raise ValueError(
                    f"advance of {type(self._env).__name__} must return {name} of shape {shape}, got {array.shape}"
                )
        self._states = np.array(states, dtype=np.float64, order="F")
        return self._env.observe(self._states), rewards, terminated


def _only_row(observations: Observed) -> Any:
    return map_observations(lambda array: array[0], observations)
