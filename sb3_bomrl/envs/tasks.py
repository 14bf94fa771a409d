"""
Task distributions.

A distribution samples tasks, checks a task that a user gives, and lists the held-out tasks of the benchmark. Single
environments and batches use the same classes.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Protocol

import numpy as np

from sb3_bomrl.checks import check_interval, check_non_negative, check_positive
from sb3_bomrl.types import Task

_TASK_STREAM = 1
"""Spawn key that keeps the stream of tasks apart from the environment's own stream of the same seed."""


class TaskDistribution(Protocol):
    """A family of tasks: sampler, validator, and the fixed held-out tasks (``None`` where there are none)."""

    @property
    def default(self) -> Task:
        """The task of an environment for which none was chosen."""

    @property
    def test_tasks(self) -> list[Task] | None:
        """Fixed held-out tasks of the benchmark, or ``None``."""

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[Task]:
        """Draw ``n_tasks`` tasks."""

    def check(self, task: Task) -> Task:
        """Return the task in canonical form (a plain Python object), or raise ``ValueError``."""


class IntervalTasks:
    """
    A number drawn uniformly from an interval: goal velocities.

    The held-out tasks are about 0.1 apart strictly inside the interval: 0.1, 0.2, …, 1.9 for ``(0, 2)``.

    :param goal_range: the training range (low, high)
    :raises ValueError: unless it is two finite numbers, the first one smaller
    """

    def __init__(self, goal_range: Sequence[float]) -> None:
        self.low, self.high = check_interval("goal_range", goal_range)

    @property
    def default(self) -> float:
        """The middle of the interval."""
        return 0.5 * (self.low + self.high)

    @property
    def test_tasks(self) -> list[float]:
        """Evenly spaced interior points."""
        n_intervals = max(2, round((self.high - self.low) / 0.1))
        inner = np.linspace(self.low, self.high, n_intervals + 1)[1:-1]
        return [round(float(goal), 10) for goal in inner]

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[float]:
        """Draw independently and uniformly."""
        return [float(goal) for goal in rng.uniform(self.low, self.high, size=n_tasks)]

    def check(self, task: Task) -> float:
        """Accept any finite number, also outside the training range."""
        return _check_number(task, "the goal velocity")


class DirectionTasks:
    """
    One of two directions, −1 or +1.

    A sample is balanced: as many of one as of the other, in random order, the odd one out at random, so that every
    single draw is uniform.
    """

    default = 1

    @property
    def test_tasks(self) -> list[int]:
        """Both directions."""
        return [-1, 1]

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[int]:
        """Draw equally many of both, in random order."""
        first = 1 if rng.random() < 0.5 else -1
        directions = np.resize([first, -first], n_tasks)
        return [int(direction) for direction in rng.permutation(directions)]

    def check(self, task: Task) -> int:
        """Accept −1 and +1."""
        if isinstance(task, (bool, np.bool_)) or not isinstance(task, Real) or float(task) not in (-1.0, 1.0):
            raise ValueError(f"task must be -1 or +1 (the direction), got {task!r}")
        return 1 if float(task) > 0 else -1


class AngleTasks:
    """
    A direction in the plane, as an angle drawn uniformly from [0, 2π).

    The held-out tasks are the 16 multiples of π/8.
    """

    default = 0.0

    @property
    def test_tasks(self) -> list[float]:
        """Evenly spaced directions."""
        return [float(k * np.pi / 8) for k in range(16)]

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[float]:
        """Draw independently and uniformly."""
        return [float(angle) for angle in rng.uniform(0.0, 2.0 * np.pi, size=n_tasks)]

    def check(self, task: Task) -> float:
        """Accept any finite number."""
        return _check_number(task, "the direction in radians")


class SquareTasks:
    """
    A point drawn uniformly from the square ``[-half_width, half_width]²``.

    The held-out tasks are a grid of ``n_grid`` × ``n_grid`` points that includes the corners.

    :param half_width: half the side of the square
    :param n_grid: held-out points per axis
    :raises ValueError: if ``half_width`` is not positive and finite
    """

    def __init__(self, half_width: float = 0.5, n_grid: int = 5) -> None:
        check_positive("goal_half_width", half_width)
        self.half_width, self.n_grid = float(half_width), n_grid

    @property
    def default(self) -> tuple[float, float]:
        """The upper right corner."""
        return (self.half_width, self.half_width)

    @property
    def test_tasks(self) -> list[tuple[float, float]]:
        """The grid, row by row."""
        axis = np.linspace(-self.half_width, self.half_width, self.n_grid)
        return [(float(x), float(y)) for y in axis for x in axis]

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[tuple[float, float]]:
        """Draw independently and uniformly."""
        goals = rng.uniform(-self.half_width, self.half_width, size=(n_tasks, 2))
        return [(float(x), float(y)) for x, y in goals]

    def check(self, task: Task) -> tuple[float, float]:
        """Accept any pair of finite numbers, also outside the square."""
        try:
            goal = np.asarray(task, dtype=np.float64)
        except (TypeError, ValueError):
            goal = np.empty(0)
        if goal.shape != (2,) or not np.isfinite(goal).all():
            raise ValueError(f"task must be two finite numbers (the goal's x and y), got {task!r}")
        return (float(goal[0]), float(goal[1]))


def _check_number(task: Task, meaning: str) -> float:
    if isinstance(task, (bool, np.bool_)) or not isinstance(task, Real) or not np.isfinite(float(task)):
        raise ValueError(f"task must be a finite number ({meaning}), got {task!r}")
    return float(task)


class TaskStream:
    """
    The generator that tasks are drawn from, apart from the environment's ``np_random``.

    Seeded by :meth:`seed` if that was called, else by the seeds of the environment's resets, else by the operating
    system.
    """

    def __init__(self) -> None:
        self._rng: np.random.Generator | None = None
        self._seed: int | None = None
        self._is_fixed = False

    def seed(self, seed: int | None) -> None:
        """
        Seed the tasks; seeds of later resets no longer matter.

        :param seed: a non-negative integer, or ``None`` to go back to the seeds of the resets
        :raises ValueError: for anything else
        """
        check_non_negative("seed", seed, integer=True, optional=True)
        self._seed, self._rng = (None if seed is None else int(seed)), None
        self._is_fixed = seed is not None

    def on_reset(self, seed: int | None) -> bool:
        """
        Take the seed of a reset, unless :meth:`seed` was called.

        :param seed: the seed, ``None`` to go on
        :return: true if it was taken
        """
        if seed is None or self._is_fixed:
            return False
        self._seed, self._rng = seed, None
        return True

    @property
    def rng(self) -> np.random.Generator:
        """The generator, made on first use."""
        if self._rng is None:
            sequence = np.random.SeedSequence(self._seed, spawn_key=(_TASK_STREAM,))
            self._rng = np.random.default_rng(sequence)
        return self._rng
