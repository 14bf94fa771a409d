"""Small task families in which a goal is hidden."""

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.envs.array_env import Advanced, Array, ArrayTaskEnv, Observed
from sb3_bomrl.envs.drawn_tasks import DrawnTasks
from sb3_bomrl.envs.tasks import SquareTasks

GRID_SIZE = 5
GRID_START = 12
GRID_TEST_GOALS = (0, 4, 10, 14, 20, 24, 2, 22)
GRID_TRAIN_GOALS = tuple(cell for cell in range(GRID_SIZE**2) if cell not in (GRID_START, *GRID_TEST_GOALS))

_GRID_MOVES = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
_UNIT_BOX = spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)


def _draw_cell(rng: np.random.Generator) -> int:
    return int(rng.choice(GRID_TRAIN_GOALS))


def _is_goal(cell: int) -> bool:
    return 0 <= cell < GRID_SIZE**2 and cell != GRID_START


class GridGoalEnv(ArrayTaskEnv):
    """
    A walk on 5 × 5 cells from the middle to a hidden goal, which is the task: the number of a cell, row by row.

    The observation is the number of the cell; the actions are up, down, left, right, and walls hold. Every step
    costs 0.05, and the one to the goal also pays 1 and terminates the episode. Eight goals at the border are held out.
    """

    observation_space = spaces.Discrete(GRID_SIZE**2)
    action_space = spaces.Discrete(4)
    horizon = 20
    task_distribution = DrawnTasks(
        _draw_cell,
        GRID_TRAIN_GOALS[0],
        GRID_TEST_GOALS,
        "the goal's cell, 0 to 24 but for the start, 12",
        _is_goal,
    )

    def start(self, rng: np.random.Generator) -> Array:
        """Return the middle."""
        return np.array(divmod(GRID_START, GRID_SIZE), dtype=np.float64)

    def observe(self, states: Array) -> npt.NDArray[np.int64]:
        """Number the cells."""
        return (GRID_SIZE * states[:, 0] + states[:, 1]).astype(np.int64)

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Walk."""
        new = (states + _GRID_MOVES[actions]).clip(0.0, GRID_SIZE - 1.0)
        found = self.observe(new) == tasks[:, 0]
        return new, np.where(found, 1.0, 0.0) - 0.05, found


def _draw_on_ring(rng: np.random.Generator) -> tuple[float, float]:
    """Radius in U(0.3, 0.9), any direction."""
    radius, angle = rng.uniform(0.3, 0.9), rng.uniform(-np.pi, np.pi)
    return radius * np.cos(angle), radius * np.sin(angle)


class ReachGoalEnv(ArrayTaskEnv):
    """
    A planar arm of two links of 0.5, whose tip is to reach a hidden goal, the task (x, y).

    The observation is the cosines and the sines of both joints, (4,); the action is the velocity of the joints as a
    fraction of 0.2 per step, (2,). The reward is minus the distance of the tip to the goal, and the episode never
    terminates. Goals have radius U(0.3, 0.9); six of radius 0.6 are held out.
    """

    observation_space = spaces.Box(-1.0, 1.0, shape=(4,), dtype=np.float32)
    action_space = _UNIT_BOX
    horizon = 30
    task_distribution = DrawnTasks(
        _draw_on_ring,
        (0.6, 0.0),
        [(0.6 * np.cos(angle), 0.6 * np.sin(angle)) for angle in 0.3 + np.pi / 3.0 * np.arange(6)],
        "the goal's x and y",
    )

    def start(self, rng: np.random.Generator) -> Array:
        """Draw the joints from (0, 0.5) ± U(0, 0.1)."""
        return np.array([0.0, 0.5]) + rng.uniform(-0.1, 0.1, size=2)

    def observe(self, states: Array) -> npt.NDArray[np.float32]:
        """Show the angles as points of the unit circle."""
        return np.concatenate([np.cos(states), np.sin(states)], axis=1).astype(np.float32)

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Turn the joints, then measure the distance."""
        new = states + 0.2 * actions
        upper, lower = new[:, 0], new[:, 0] + new[:, 1]
        x = 0.5 * (np.cos(upper) + np.cos(lower)) - tasks[:, 0]
        y = 0.5 * (np.sin(upper) + np.sin(lower)) - tasks[:, 1]
        return new, -np.sqrt(x**2 + y**2), None


class PointMassGoalEnv(ArrayTaskEnv):
    """
    A mass in the plane that is pushed to a hidden goal, the task (x, y), and must brake there.

    The observation is a dictionary of ``position`` and ``velocity``, (2,) each. The action is the force as a fraction
    of the largest, (2,). The mass starts at rest in the middle, and walls at ± 2 stop it. The reward is minus the
    distance to the goal, and the episode never terminates. Goals are uniform in [-1, 1]²; a 5 × 5 grid is held out.
    """

    observation_space = spaces.Dict(
        position=spaces.Box(-2.0, 2.0, shape=(2,), dtype=np.float32),
        velocity=spaces.Box(-2.0, 2.0, shape=(2,), dtype=np.float32),
    )
    action_space = _UNIT_BOX
    horizon = 50
    task_distribution = SquareTasks(1.0)

    def start(self, rng: np.random.Generator) -> Array:
        """Return the middle, at rest."""
        return np.zeros(4)

    def observe(self, states: Array) -> Observed:
        """Show all, in two parts."""
        shown = states.astype(np.float32, order="C")
        return {"position": shown[:, :2], "velocity": shown[:, 2:]}

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Push for 0.1 s, with force 2 per unit of mass and drag 1 per second."""
        velocities = 0.9 * states[:, 2:] + 0.2 * actions
        positions = states[:, :2] + 0.1 * velocities
        velocities = np.where(np.abs(positions) > 2.0, 0.0, velocities)
        positions = positions.clip(-2.0, 2.0)
        x, y = (positions - tasks).T
        return np.concatenate([positions, velocities], axis=1), -np.sqrt(x**2 + y**2), None
