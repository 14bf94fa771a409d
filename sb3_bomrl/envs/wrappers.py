"""A wrapper that gives any Gymnasium environment tasks."""

from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from sb3_bomrl.checks import check_positive, task_list
from sb3_bomrl.envs.tasks import TaskStream
from sb3_bomrl.types import Task

Sampler = Callable[[np.random.Generator], Task]
"""Draws a task."""

ApplyTask = Callable[[gym.Env, Task], None]
"""Makes an environment play a task."""

MakeEnv = Callable[[Task], gym.Env]
"""Builds an environment that plays a task."""

_ENV_STREAM = 2
"""Spawn key of the stream that seeds the environments a factory builds."""


class TaskSamplerWrapper(gym.Wrapper):
    """
    Turn an environment into a family of tasks, with the methods of :class:`~sb3_bomrl.envs.base.TaskEnv`.

    Three ways to say what a task is::

        TaskSamplerWrapper(env, sampler=sample_mass, apply_task=set_mass)  # (a) change the environment
        TaskSamplerWrapper(sampler=sample_mass, make_env=build_env)  # (b) build one per task
        TaskSamplerWrapper(env)  # (c) env has sample_tasks and set_task itself

    With ``resample_on_reset`` every reset draws a new task, so that a plain SB3 algorithm trains on all of them. An
    explicit :meth:`set_task` pins the task and switches that off, until :meth:`resume_sampling`. In (a) and (b) the
    first reset draws a task if none was set. In (b) ``set_task`` replaces the environment, and a reset must follow. The
    environment before is left as it is, not closed, so that ``make_env`` may return it again; :meth:`close` closes the
    present one.

    :param env: the environment; optional in (b), where the first one is built from a task drawn for this purpose
    :param sampler: draws a task from a generator
    :param apply_task: makes the environment play a task, at once or from its next reset
    :param make_env: builds an environment that plays a task
    :param test_tasks: fixed held-out tasks
    :param resample_on_reset: draw a new task at every reset
    :raises ValueError: if the arguments are none of the three combinations, ``sampler`` returns ``None``, or
        ``make_env`` something else than an environment with the same spaces
    """

    def __init__(
        self,
        env: gym.Env | None = None,
        sampler: Sampler | None = None,
        apply_task: ApplyTask | None = None,
        make_env: MakeEnv | None = None,
        test_tasks: Sequence[Task] | None = None,
        resample_on_reset: bool = True,
    ) -> None:
        _check_arguments(env, sampler, apply_task, make_env)
        if env is None:
            assert sampler is not None
            assert make_env is not None
            env = _build(make_env, _draw(sampler, np.random.default_rng(0)))
        super().__init__(env)
        self.sampler, self.apply_task, self.make_env = sampler, apply_task, make_env
        self.resample_on_reset = resample_on_reset
        self._test_tasks = None if test_tasks is None else task_list("test_tasks", test_tasks)
        self._task: Task = None
        self._has_task = sampler is None
        self._stream = TaskStream()
        self._env_seeds = np.random.default_rng()
        self._is_fresh = False

    def sample_tasks(self, n_tasks: int) -> list[Task]:
        """
        Draw tasks; the environment keeps the one it has.

        :param n_tasks: how many, at least 1
        """
        if self.sampler is None:
            return self.env.get_wrapper_attr("sample_tasks")(n_tasks)
        check_positive("n_tasks", n_tasks, integer=True)
        return [_draw(self.sampler, self._stream.rng) for _ in range(n_tasks)]

    def set_task(self, task: Task) -> None:
        """
        Play this task from now on, also after resets.

        :param task: what the sampler returns, or the wrapped environment's ``set_task`` accepts
        :raises ValueError: if ``make_env`` builds an environment with other spaces
        """
        self._switch(task)
        self.resample_on_reset = False

    def get_task(self) -> Task:
        """Return the current task, ``None`` before the first."""
        return self.env.get_wrapper_attr("get_task")() if self.sampler is None else self._task

    def seed_tasks(self, seed: int | None) -> None:
        """
        Seed the tasks apart from the environment.

        :param seed: a non-negative integer, or ``None`` to follow the seeds of the resets again
        """
        self._stream.seed(seed)
        self._seed_own_tasks()

    def resume_sampling(self) -> None:
        """Draw a new task at every reset again."""
        self.resample_on_reset = True

    @property
    def test_tasks(self) -> list[Task] | None:
        """Fixed held-out tasks, ``None`` if there are none."""
        if self._test_tasks is None and self.env.has_wrapper_attr("test_tasks"):
            return self.env.get_wrapper_attr("test_tasks")
        return self._test_tasks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of a new task where tasks are resampled."""
        if seed is not None:
            self._seed_streams(seed)
        if self.resample_on_reset or not self._has_task:
            self._switch(self.sample_tasks(1)[0])
        if self._is_fresh and seed is None:
            seed = int(self._env_seeds.integers(2**31))
        self._is_fresh = False
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, {**info, "task": self.get_task()}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment; the info also holds the task."""
        if self._is_fresh:
            raise RuntimeError("set_task replaced the environment: call reset() before step()")
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "task": self.get_task()}

    def _seed_streams(self, seed: int) -> None:
        self._env_seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ENV_STREAM,)))
        if self._stream.on_reset(seed):
            self._seed_own_tasks()

    def _seed_own_tasks(self) -> None:
        """Where the wrapped environment draws the tasks, seed it from this wrapper's stream."""
        if self.sampler is None and self.env.has_wrapper_attr("seed_tasks"):
            self.env.get_wrapper_attr("seed_tasks")(int(self._stream.rng.integers(2**31)))

    def _switch(self, task: Task) -> None:
        if self.make_env is not None:
            self._replace_env(_build(self.make_env, task), task)
        elif self.apply_task is not None:
            self.apply_task(self.env, task)
        else:
            self.env.get_wrapper_attr("set_task")(task)
        self._task, self._has_task = task, True

    def _replace_env(self, env: gym.Env, task: Task) -> None:
        old, new = (self.env.observation_space, self.env.action_space), (env.observation_space, env.action_space)
        if old != new:
            raise ValueError(
                f"make_env must build environments with the same spaces; for task {task!r} it built "
                f"observation and action spaces {new}, before {old}"
            )
        self.env, self._is_fresh = env, True


def _draw(sampler: Sampler, generator: np.random.Generator) -> Task:
    task = sampler(generator)
    if task is None:
        raise ValueError(f"sampler must return a task, got None from {sampler}")
    return task


def _build(make_env: MakeEnv, task: Task) -> gym.Env:
    env = make_env(task)
    if not isinstance(env, gym.Env):
        raise ValueError(f"make_env must return an environment, got {env!r} for task {task!r}")
    return env


def _check_arguments(
    env: gym.Env | None, sampler: Sampler | None, apply_task: ApplyTask | None, make_env: MakeEnv | None
) -> None:
    """Raise unless the arguments are one of the wrapper's three combinations."""
    for name, value in (("sampler", sampler), ("apply_task", apply_task), ("make_env", make_env)):
        if value is not None and not callable(value):
            raise ValueError(f"{name} must be a function, got {value!r}")
    if apply_task is not None and make_env is not None:
        raise ValueError("give either apply_task or make_env, not both")
    if env is None and make_env is None:
        raise ValueError("env must be given unless make_env builds it, got None")
    if (sampler is None) != (apply_task is None and make_env is None):
        raise ValueError("sampler needs apply_task or make_env, and they need a sampler")
    if sampler is None:
        assert env is not None
        missing = [name for name in ("sample_tasks", "set_task", "get_task") if not env.has_wrapper_attr(name)]
        if missing:
            raise ValueError(
                f"env {env} has no {', '.join(missing)}: give a sampler, with apply_task or make_env, "
                "or an env with these methods"
            )
