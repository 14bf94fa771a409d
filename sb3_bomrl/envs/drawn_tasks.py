"""Tasks that a function draws."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sb3_bomrl.types import Task


class DrawnTasks:
    """
    Tasks that are a number each, or a tuple of as many numbers, drawn independently by a function.

    :param draw: draws a task from a generator, and from nothing else
    :param default: task of an environment for which none was chosen; its form is the form of all: an integer, a number,
        or a tuple of numbers
    :param test_tasks: fixed held-out tasks
    :param meaning: what the numbers are, for errors
    :param accepts: whether a task of the right form is one of the family; by default every one is
    :raises ValueError: if ``default`` or a test task is not accepted
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Any],
        default: Task,
        test_tasks: Sequence[Task],
        meaning: str,
        accepts: Callable[[Any], bool] | None = None,
    ) -> None:
        self._draw, self._accepts, self._meaning = draw, accepts, meaning
        form = np.asarray(default)
        self._shape, self._kind = form.shape, (int if form.dtype.kind in "iu" else float)
        self.default = self.check(default)
        self._test_tasks = [self.check(task) for task in test_tasks]

    @property
    def test_tasks(self) -> list[Task]:
        """The held-out tasks."""
        return list(self._test_tasks)

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[Task]:
        """Draw independently."""
        return [self.check(self._draw(rng)) for _ in range(n_tasks)]

    def check(self, task: Task) -> Task:
        """Accept finite numbers of the default's form, where ``accepts`` does."""
        found = self._plain(task)
        if found is None or not (self._accepts is None or self._accepts(found)):
            number = "integer" if self._kind is int else "finite number"
            words = f"{self._shape[0]} {number}s" if self._shape else f"{'an' if self._kind is int else 'a'} {number}"
            raise ValueError(f"task must be {words} ({self._meaning}), got {task!r}")
        return found

    def _plain(self, task: Task) -> Task:
        """Python's own numbers, ``None`` if the task has another form."""
        try:
            array = np.asarray(task)
        except (TypeError, ValueError):
            return None
        if array.shape != self._shape or array.dtype.kind not in ("iu" if self._kind is int else "iuf"):
            return None
        if not np.isfinite(array).all():
            return None
        numbers = array.astype(self._kind).tolist()
        return tuple(numbers) if self._shape else numbers
