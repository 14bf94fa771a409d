"""
Frozen Lake task families on small maps: hole layouts (high task variance) and penalty layouts (low task variance).

They differ from Gymnasium's FrozenLake: the goal pays +1 and a hole -1 at *every* step, and neither ends the episode,
which always lasts ``horizon`` steps. A task is a layout, a tuple of row strings.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.envs.base import TaskEnv
from sb3_bomrl.tabular.lakes import (
    LAKE_GAMMA,
    LAKE_PENALTY,
    LAKE_SIZE,
    Layout,
    cell_rewards,
    check_layout,
    move_table,
    sample_layouts,
    slip_table,
    start_state,
)
from sb3_bomrl.tabular.mdp import TransitionTable
from sb3_bomrl.types import Task

LAKE_HORIZON = 49
N_ACTIONS = 4
N_SLIPS = 3
SLIPS = slip_table()


class LakeDynamics(NamedTuple):
    """
    A layout as arrays.

    :param moves: next state by state and direction, (n_states, 4)
    :param rewards: reward of a step by the state it ends in, (n_states,)
    :param start: first state of an episode
    """

    moves: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float64]
    start: int


@lru_cache(maxsize=4096)
def lake_dynamics(layout: Layout, penalty: float) -> LakeDynamics:
    """
    Return the arrays of a layout; they are shared, and therefore read-only.

    :param layout: a checked layout
    :param penalty: reward of a step that ends on a penalty cell
    :return: moves, rewards and start
    """
    moves, rewards = move_table(layout), cell_rewards(layout, penalty)
    moves.flags.writeable = rewards.flags.writeable = False
    return LakeDynamics(moves, rewards, start_state(layout))


class LakeTasks:
    """
    A fixed set of training layouts, and as many held-out ones, all different.

    A sample of up to ``n_train_tasks`` has no layout twice; a larger one has every layout equally often, up to one.

    :param family: ``"high_variance"`` or ``"low_variance"``
    :param n_train_tasks: number of training layouts
    :param map_seed: seed from which the layouts are drawn
    :param size: side of the maps
    """

    def __init__(self, family: str, n_train_tasks: int = 20, map_seed: int = 0, size: int = LAKE_SIZE) -> None:
        check_positive("n_train_tasks", n_train_tasks, integer=True)
        layouts = sample_layouts(family, 2 * n_train_tasks, map_seed, size)
        self.size = size
        self.train_tasks, self._test_tasks = layouts[:n_train_tasks], layouts[n_train_tasks:]

    @property
    def default(self) -> Layout:
        """The first training layout."""
        return self.train_tasks[0]

    @property
    def test_tasks(self) -> list[Layout]:
        """The held-out layouts."""
        return list(self._test_tasks)

    def sample(self, rng: np.random.Generator, n_tasks: int) -> list[Layout]:
        """Draw training layouts in random order."""
        order = np.resize(rng.permutation(len(self.train_tasks)), n_tasks)
        return [self.train_tasks[index] for index in order]

    def check(self, task: Task) -> Layout:
        """Accept any layout of the right size."""
        if not isinstance(task, (tuple, list)):
            raise ValueError(f"task must be a layout, a tuple of {self.size} row strings, got {task!r}")
        layout = check_layout(tuple(task))
        if len(layout) != self.size or len(layout[0]) != self.size:
            raise ValueError(f"task must be a layout of size {self.size}x{self.size}, got {layout}")
        return layout


class FrozenLakeTaskEnv(TaskEnv, gym.Env[np.int64, np.int64]):
    """
    A Frozen Lake whose layout is the task; base class of the two families.

    The observation is the number of the cell, row by row; the actions are left, down, right, up. The layout is not
    observed. The episode never terminates and is truncated after ``horizon`` steps. The tables ``P`` and
    ``initial_state_distrib`` have the format of Gymnasium's toy-text environments.

    :param family: ``"high_variance"`` or ``"low_variance"``
    :param is_slippery: whether a move goes astray to either side with probability 1/3 each
    :param penalty: reward of a step that ends on a penalty cell
    :param n_train_tasks: number of training layouts, and of held-out ones
    :param map_seed: seed from which the layouts are drawn
    :param size: side of the square map
    :param horizon: steps per episode
    :param task: first layout, ``None`` for the first training layout
    :param render_mode: ``"ansi"`` or ``None``
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}
    gamma = LAKE_GAMMA

    def __init__(
        self,
        family: str,
        is_slippery: bool = False,
        penalty: float = LAKE_PENALTY,
        n_train_tasks: int = 20,
        map_seed: int = 0,
        size: int = LAKE_SIZE,
        horizon: int = LAKE_HORIZON,
        task: Layout | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_choice("render_mode", render_mode, (None, "ansi"))
        check_positive("horizon", horizon, integer=True)
        self.render_mode = render_mode
        self.is_slippery, self.penalty = bool(is_slippery), float(penalty)
        self.horizon = int(horizon)
        self.observation_space = spaces.Discrete(size * size)
        self.action_space = spaces.Discrete(N_ACTIONS)
        self._n_elapsed = 0
        self._slips = np.ones(self.horizon, dtype=np.int64)
        self._init_tasks(LakeTasks(family, n_train_tasks, map_seed, size), task)
        self._state = self._dynamics.start

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Go back to the start; a slippery lake draws the slips of the whole episode here."""
        super().reset(seed=seed, options=options)
        self._seed_tasks_on_reset(seed)
        self._state = self._dynamics.start
        self._n_elapsed = 0
        if self.is_slippery:
            self._slips = draw_slips(self.np_random, self.horizon)
        return np.int64(self._state), {"task": self._task}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Move, and pay for the cell reached."""
        direction = int(action)
        if self.is_slippery:
            direction = int(SLIPS[direction, self._slips[self._n_elapsed % self.horizon]])
        self._state = int(self._dynamics.moves[self._state, direction])
        self._n_elapsed += 1
        reward = float(self._dynamics.rewards[self._state])
        return np.int64(self._state), reward, False, self._n_elapsed >= self.horizon, {"task": self._task}

    def render(self) -> str | None:
        """Return the map with the agent's cell in brackets, for ``render_mode="ansi"``."""
        return render_lake(self._task, self._state) if self.render_mode == "ansi" else None

    @property
    def P(self) -> TransitionTable:
        """The current task's transitions: state -> action -> [(probability, next state, reward, terminated)]."""
        moves, rewards, _ = self._dynamics
        ways = SLIPS if self.is_slippery else np.arange(N_ACTIONS)[:, None]
        return {
            state: {
                action: [(1.0 / len(directions), int(to), float(rewards[to]), False) for to in moves[state, directions]]
                for action, directions in enumerate(ways)
            }
            for state in range(len(moves))
        }

    @property
    def initial_state_distrib(self) -> npt.NDArray[np.float64]:
        """Distribution of the first state, (n_states,)."""
        distribution = np.zeros(len(self._dynamics.rewards))
        distribution[self._dynamics.start] = 1.0
        return distribution

    def _apply_task(self, task: Task) -> None:
        self._dynamics = lake_dynamics(task, self.penalty)


class FrozenLakeHighVarianceEnv(FrozenLakeTaskEnv):
    """Frozen Lake with holes, which absorb and pay -1 a step; parameters as :class:`FrozenLakeTaskEnv`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("high_variance", **kwargs)


class FrozenLakeLowVarianceEnv(FrozenLakeTaskEnv):
    """Frozen Lake with penalty cells in place of holes; parameters as :class:`FrozenLakeTaskEnv`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("low_variance", **kwargs)


def draw_slips(rng: np.random.Generator, horizon: int) -> npt.NDArray[np.int64]:
    """
    Draw the slips of an episode, uniform columns of the slip table.

    :param rng: the environment's generator
    :param horizon: steps per episode
    :return: (horizon,)
    """
    return rng.integers(N_SLIPS, size=horizon)


def render_lake(layout: Layout, state: int) -> str:
    """
    Write a map as text.

    :param layout: map
    :param state: cell to put in brackets
    :return: a line per row
    """
    n_columns = len(layout[0])
    lines = []
    for row, cells in enumerate(layout):
        marked = [
            f"[{cell}]" if row * n_columns + column == state else f" {cell} " for column, cell in enumerate(cells)
        ]
        lines.append("".join(marked))
    return "\n".join(lines)
