"""One environment of a batch, for ``env_method`` and ``get_attr``."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.tasks import TaskDistribution, TaskStream
from sb3_bomrl.types import Task


class Batch(Protocol):
    """The parts of a batch that its environments show."""

    observation_space: spaces.Space
    action_space: spaces.Space
    metadata: dict[str, Any]
    spec: EnvSpec | None
    horizon: int
    env_render_mode: str | None
    task_distribution: TaskDistribution

    def set_tasks(self, tasks: list[Task], n_repeats: int = 1, indices: list[int] | None = None) -> None:
        """Give environments their tasks."""

    def get_task(self, index: int) -> Task:
        """Return the task of one environment."""

    def render_one(self, index: int) -> Any:
        """Return an image of one environment."""


class EnvView:
    """
    The methods and attributes of one environment of a :class:`~sb3_bomrl.vec_env.base.BatchTaskVecEnv`.

    They are those of a :class:`~sb3_bomrl.envs.base.TaskEnv`, except ``reset`` and ``step``, which a batch does for
    all of its environments at once. Other attributes can be set and read.

    :param venv: the batch
    :param index: which of its environments
    """

    def __init__(self, venv: Batch, index: int) -> None:
        self._venv = venv
        self._index = index
        self.task_stream = TaskStream()
        self._np_random: np.random.Generator | None = None
        self._seed: int | None = None

    def set_task(self, task: Task) -> None:
        """Switch this environment to a task at once."""
        self._venv.set_tasks([task], indices=[self._index])

    def get_task(self) -> Task:
        """Return the task of this environment."""
        return self._venv.get_task(self._index)

    def sample_tasks(self, n_tasks: int) -> list[Task]:
        """Draw tasks from this environment's task generator."""
        check_positive("n_tasks", n_tasks, integer=True)
        return self._venv.task_distribution.sample(self.task_stream.rng, n_tasks)

    def seed_tasks(self, seed: int | None) -> None:
        """Seed this environment's task generator."""
        self.task_stream.seed(seed)

    def render(self) -> Any:
        """Return an image of this environment."""
        return self._venv.render_one(self._index)

    @property
    def test_tasks(self) -> list[Task] | None:
        """Held-out tasks of the family."""
        return self._venv.task_distribution.test_tasks

    @property
    def horizon(self) -> int:
        """Steps per episode."""
        return self._venv.horizon

    @property
    def np_random(self) -> np.random.Generator:
        """Gymnasium's generator of this environment, made on first use."""
        if self._np_random is None:
            self._np_random = new_generator(self._seed)
        return self._np_random

    def on_reset(self, seed: int | None) -> None:
        """
        Take the seed of a reset, as ``reset(seed=...)`` of a single environment does.

        :param seed: a non-negative integer, or ``None`` to go on with the present generators
        """
        if seed is not None:
            self._seed, self._np_random = seed, None
        self.task_stream.on_reset(seed)

    @property
    def render_mode(self) -> str | None:
        """``"rgb_array"`` or ``None``."""
        return self._venv.env_render_mode

    @property
    def metadata(self) -> dict[str, Any]:
        """Render modes and frames per second."""
        return self._venv.metadata

    @property
    def observation_space(self) -> Any:
        """The space of one observation."""
        return self._venv.observation_space

    @property
    def action_space(self) -> Any:
        """The space of one action."""
        return self._venv.action_space

    @property
    def spec(self) -> Any:
        """Gymnasium's specification, ``None`` for a batch made without an id."""
        return self._venv.spec

    @property
    def unwrapped(self) -> EnvView:
        """Itself: nothing is wrapped."""
        return self


def new_generator(seed: int | None) -> np.random.Generator:
    """
    Make the generator that Gymnasium's ``reset(seed=seed)`` makes.

    :param seed: a non-negative integer, or ``None`` for a random seed
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
