"""Distribution of tasks that change a MuJoCo model: random multipliers of masses, inertias, damping and so on."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sb3_bomrl.checks import check_non_negative
from sb3_bomrl.types import Task

ModelTask: TypeAlias = dict[str, Any]
"""Multipliers by the name of what they multiply, as (nested) tuples of numbers; JSON's lists are accepted too."""

BASES = {
    "body_mass": 1.5,
    "body_inertia": 1.5,
    "dof_damping": 1.3,
    "geom_friction": 1.5,
    "segment_length": 1.1,
}
"""A multiplier is the base to the power u, with u uniform in ``[-log_scale_limit, log_scale_limit]``."""

RAND_PARAMS = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
"""Quantities that tasks change by default, those of ``rand_param_envs``."""

N_TEST_TASKS = 20
_TEST_SEED = 2024


class ModelTasks:
    """
    Independent multipliers, one per entry of each field of the model.

    The held-out tasks are 20 draws with a fixed seed, the same ones for one ``log_scale_limit`` and ``rand_params``.

    :param shapes: the shape of the multipliers by name
    :param log_scale_limit: largest absolute exponent
    :raises ValueError: if ``log_scale_limit`` is negative or not finite
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], log_scale_limit: float = 3.0) -> None:
        check_non_negative("log_scale_limit", log_scale_limit)
        self.shapes, self.log_scale_limit = dict(shapes), float(log_scale_limit)

    @property
    def default(self) -> ModelTask:
        """The model as it is: all multipliers are 1."""
        return {name: _as_tuples(np.ones(shape)) for name, shape in self.shapes.items()}

    @property
    def test_tasks(self) -> list[ModelTask]:
        """Twenty fixed draws."""
        return self.sample(np.random.default_rng(_TEST_SEED), N_TEST_TASKS)

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[ModelTask]:
        """Draw independent multipliers, task by task."""
        return [{name: self._draw(rng, name) for name in self.shapes} for _ in range(n_tasks)]

    def _draw(self, rng: np.random.Generator, name: str) -> Any:
        exponents = rng.uniform(-self.log_scale_limit, self.log_scale_limit, size=self.shapes[name])
        return _as_tuples(BASES[name] ** exponents)

    def check(self, task: Task) -> ModelTask:
        """Accept any positive multipliers; a missing key means 1, and a single number counts for all entries."""
        if not isinstance(task, Mapping):
            raise ValueError(f"task must be a dictionary of multipliers for {tuple(self.shapes)}, got {task!r}")
        for name in task:
            if name not in self.shapes:
                raise ValueError(f"task may hold multipliers for {tuple(self.shapes)}, got {name!r}")
        return {name: self._check_multipliers(name, task.get(name, 1.0)) for name in self.shapes}

    def _check_multipliers(self, name: str, multipliers: Any) -> Any:
        shape = self.shapes[name]
        try:
            values = np.asarray(multipliers, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.full(shape, np.nan)
        if values.shape not in ((), shape) or not np.isfinite(values).all() or not (values > 0).all():
            raise ValueError(
                f"task[{name!r}] must be a number or numbers of shape {shape}, finite and above 0, got {multipliers!r}"
            )
        return _as_tuples(np.broadcast_to(values, shape))


def _as_tuples(values: npt.NDArray[np.float64]) -> tuple[Any, ...]:
    return tuple(tuple(row) if isinstance(row, list) else row for row in values.tolist())


def check_rand_params(rand_params: Sequence[str]) -> tuple[str, ...]:
    """
    Check the names of the quantities that tasks change.

    :param rand_params: one or more keys of :data:`BASES`
    :return: in the order of :data:`BASES`
    :raises ValueError: if there are none, or one is unknown or repeated
    """
    names = tuple(rand_params) if not isinstance(rand_params, str) else (rand_params,)
    if not names or len(set(names)) < len(names) or not set(names) <= set(BASES):
        raise ValueError(f"rand_params must be one or more different names of {tuple(BASES)}, got {rand_params!r}")
    return tuple(name for name in BASES if name in names)
