"""Tasks of a VecEnv's environments: sampling them, and giving each environment its own."""

from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.checks import check_positive, task_list
from sb3_bomrl.rollout.workers import watched_workers
from sb3_bomrl.types import Task


def has_tasks(env: VecEnv) -> bool:
    """
    Return true for an environment that has tasks.

    :param env: any VecEnv
    :return: true if it has ``set_task``
    :raises ValueError: if it can sample tasks but has no ``set_task``
    """
    with watched_workers(env):
        settable, sampled = env.has_attr("set_task"), env.has_attr("sample_tasks")
    if sampled and not settable:
        raise ValueError(
            "env has sample_tasks(n) but no set_task(task): a task family needs both, see sb3_bomrl.TaskSamplerWrapper"
        )
    return settable


class TaskSampler:
    """
    Sample tasks from P(Γ), the task distribution of a VecEnv's environments.

    An environment without tasks is a distribution with one task, ``None``.

    :param env: any VecEnv; its environments have tasks if they have ``sample_tasks(n)`` and ``set_task(task)``
    """

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.has_tasks = has_tasks(env)

    def sample(self, n_tasks: int, generator: np.random.Generator) -> list[Task]:
        """
        Draw tasks.

        The tasks depend on ``generator`` alone: it seeds environments that have ``seed_tasks``, and the ``np_random``
        of others where that is one of NumPy's generators.

        :param n_tasks: number of tasks
        :param generator: source of the seed
        :return: n_tasks tasks
        :raises ValueError: if the environment has ``set_task`` but no ``sample_tasks``, or that does not return as many
            tasks, none of them ``None``
        """
        seed = int(generator.integers(2**31))
        if not self.has_tasks:
            return [None] * n_tasks
        if not self.env.has_attr("sample_tasks"):
            raise ValueError("env has set_task(task) but no sample_tasks(n): see sb3_bomrl.TaskSamplerWrapper")
        if self.env.has_attr("seed_tasks"):
            self.env.env_method("seed_tasks", seed, indices=[0])
        elif self.env.has_attr("np_random"):
            self._replace_generator(seed)
        return task_list(
            f"what sample_tasks({n_tasks}) returns",
            self.env.env_method("sample_tasks", n_tasks, indices=[0])[0],
            n_tasks,
        )

    def _replace_generator(self, seed: int) -> None:
        """Give the first environment a generator of the kind that it has; one of an unknown kind stays."""
        own = self.env.get_attr("np_random", indices=[0])[0]
        if isinstance(own, np.random.Generator):
            self.env.set_attr("np_random", np.random.default_rng(seed), indices=[0])
        elif isinstance(own, np.random.RandomState):
            self.env.set_attr("np_random", np.random.RandomState(seed), indices=[0])

    def test_tasks(self) -> list[Task] | None:
        """
        Return the fixed held-out tasks of the family.

        :return: tasks, or ``None`` where the environment names none
        :raises ValueError: if its ``test_tasks`` are no list of tasks
        """
        if not self.has_tasks:
            return [None]
        if not self.env.has_attr("test_tasks"):
            return None
        tasks = self.env.get_attr("test_tasks", indices=[0])[0]
        return None if tasks is None else task_list("test_tasks", tasks)


def set_tasks(env: VecEnv, tasks: Sequence[Task], n_repeats: int = 1) -> None:
    """
    Give every environment its task; nothing happens where all tasks are ``None``.

    :param env: VecEnv; one with ``set_tasks(tasks, n_repeats)`` gets all tasks in one call
    :param tasks: each one is for ``n_repeats`` neighbouring environments
    :param n_repeats: environments per task
    """
    if all(task is None for task in tasks):
        return
    base = env.unwrapped
    if hasattr(base, "set_tasks"):
        base.set_tasks(list(tasks), n_repeats)
        return
    for index in range(len(tasks) * n_repeats):
        env.env_method("set_task", tasks[index // n_repeats], indices=[index])


def split_in_waves(n_tasks: int, n_envs: int, name: str = "meta_batch_size") -> tuple[int, int]:
    """
    Spread tasks over environments.

    :param n_tasks: number of tasks, at least 1
    :param n_envs: number of environments
    :param name: name of ``n_tasks`` in errors
    :return: tasks per wave, environments per task
    :raises ValueError: if neither number divides the other
    """
    check_positive(name, n_tasks, integer=True)
    if n_envs % n_tasks == 0:
        return n_tasks, n_envs // n_tasks
    if n_tasks % n_envs == 0:
        return n_envs, 1
    below, above = n_envs - n_envs % n_tasks, n_envs + n_tasks - n_envs % n_tasks
    usable = " or ".join(str(n) for n in (below, above) if n > 0)
    raise ValueError(
        f"{name}={n_tasks} and n_envs={n_envs} cannot work together: one must be a multiple of the other. "
        f"Use n_envs={usable}, or change {name}"
    )
