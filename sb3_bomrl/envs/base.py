"""The task convention, which makes a Gymnasium environment a family of tasks."""

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.tasks import TaskDistribution, TaskStream
from sb3_bomrl.types import Task


class TaskEnv:
    """
    Mixin that gives a ``gymnasium.Env`` tasks, in the convention of the meta-RL benchmarks.

    A subclass calls :meth:`_init_tasks` in its constructor and :meth:`_seed_tasks_on_reset` in ``reset``, and puts
    :meth:`get_task` under ``info["task"]`` in ``reset`` and ``step``. Only the task decides the reward (or the
    dynamics); resetting never changes it.
    """

    task_distribution: TaskDistribution

    def _init_tasks(self, distribution: TaskDistribution, task: Task = None) -> None:
        """Set the distribution of tasks, and a first task, by default the family's."""
        self.task_distribution = distribution
        self._task_stream = TaskStream()
        self.set_task(distribution.default if task is None else task)

    def _seed_tasks_on_reset(self, seed: int | None) -> None:
        """Let the seed of a reset seed the tasks too, unless :meth:`seed_tasks` was called."""
        self._task_stream.on_reset(seed)

    def sample_tasks(self, n_tasks: int) -> list[Task]:
        """
        Draw training tasks; the environment keeps the one it has.

        :param n_tasks: how many, at least 1
        :return: plain Python objects that :meth:`set_task` accepts
        """
        check_positive("n_tasks", n_tasks, integer=True)
        return self.task_distribution.sample(self._task_stream.rng, n_tasks)

    def set_task(self, task: Task) -> None:
        """
        Switch to a task at once; the episode in progress goes on, rewarded by the new task.

        :param task: a task of this family
        :raises ValueError: if it is not one
        """
        self._task = self.task_distribution.check(task)
        self._apply_task(self._task)

    def get_task(self) -> Task:
        """Return the current task."""
        return self._task

    def seed_tasks(self, seed: int | None) -> None:
        """
        Seed the generator that :meth:`sample_tasks` draws from, which is separate from ``np_random``.

        Without it, the seed of each ``reset(seed=...)`` seeds the tasks, or the operating system if there is none.

        :param seed: a non-negative integer, or ``None`` to undo an earlier call
        """
        self._task_stream.seed(seed)

    @property
    def test_tasks(self) -> list[Task] | None:
        """Held-out tasks of the benchmark, ``None`` if the family has none."""
        return self.task_distribution.test_tasks

    def _apply_task(self, task: Task) -> None:
        """Derive from a new task, in canonical form, what the environment needs; ``set_task`` calls it."""
