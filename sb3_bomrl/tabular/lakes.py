r"""
The two Frozen Lake families as tables: hole layouts (high task variance) and penalty layouts (low task variance).

A layout is a tuple of row strings of ``S`` (start), ``G`` (goal), ``F`` (frozen), ``H`` (hole) and ``P`` (penalty).
The reward of a step is that of the cell in which it ends: +1 at the goal, -1 in a hole, ``penalty`` on a penalty cell.
The goal and the holes are absorbing, and every further step there has the same reward. With a path of 6 steps and
gamma 0.8 the optimum is :math:`\gamma^5 / (1 - \gamma) = 1.6384`.
"""

import numpy as np
import torch as th

from sb3_bomrl.checks import check_choice
from sb3_bomrl.tabular.mdp import FiniteMDP

Layout = tuple[str, ...]

LAKE_SIZE = 4
LAKE_GAMMA = 0.8
LAKE_PENALTY = -0.5
FROZEN_PROBABILITY = 0.8
FAMILIES = {"high_variance": "H", "low_variance": "P"}
"""Family -> the letter of its marked cells, in which the layouts differ."""

_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""(row, column) steps of the actions left, down, right, up, numbered as in Gymnasium's FrozenLake."""
_SLIPS = (-1, 0, 1)


def sample_layouts(
    family: str,
    n_layouts: int,
    seed: int,
    size: int = LAKE_SIZE,
) -> list[Layout]:
    """
    Draw different layouts with a path of frozen cells from the start, top left, to the goal, bottom right.

    Each other cell is frozen with probability 0.8, and else marked.

    :param family: ``"high_variance"`` (marked cells are holes) or ``"low_variance"`` (marked cells cost a penalty)
    :param n_layouts: number of layouts, at least 1
    :param seed: seed of the draw
    :param size: side of the square map, at least 2
    :return: ``n_layouts`` layouts, all different
    :raises ValueError: if an argument is out of range, or too few different layouts are found
    """
    check_choice("family", family, tuple(FAMILIES))
    if size < 2 or n_layouts < 1:
        raise ValueError(f"size must be at least 2 and n_layouts at least 1, got {size} and {n_layouts}")
    rng = np.random.default_rng(seed)
    layouts: dict[Layout, None] = {}
    for _ in range(1000 * n_layouts):
        marked = rng.random((size, size)) >= FROZEN_PROBABILITY
        layout = _layout(marked, FAMILIES[family])
        if layout not in layouts and _has_path(layout):
            layouts[layout] = None
        if len(layouts) == n_layouts:
            return list(layouts)
    raise ValueError(
        f"n_layouts={n_layouts} different maps of size {size} were not found in 1000 draws each: "
        "ask for fewer, or for larger maps"
    )


def check_layout(layout: Layout) -> Layout:
    """
    Check a layout, and return it as a tuple of strings.

    :param layout: rows of one length; one ``S``, at least one ``G``, otherwise ``F``, ``H`` and ``P``
    :raises ValueError: if it is not a layout
    """
    rows = tuple(str(row) for row in layout)
    cells = "".join(rows)
    if not rows or {len(row) for row in rows} != {len(rows[0])} or set(cells) - set("SFHPG"):
        raise ValueError(f"a layout must be rows of one length made of S, F, H, P and G, got {layout!r}")
    if cells.count("S") != 1 or "G" not in cells:
        raise ValueError(f"a layout must have one start S and a goal G, got {layout!r}")
    return rows


def move_table(layout: Layout) -> np.ndarray:
    """
    Return the cell to which each direction leads: the next one, or the same one at the border, in a hole or at a goal.

    :param layout: map, see the module's description
    :return: next state, shape (S, 4); states are numbered row by row
    """
    n_rows, n_columns = len(layout), len(layout[0])
    table = np.empty((n_rows * n_columns, len(_MOVES)), dtype=np.int64)
    for row in range(n_rows):
        for column in range(n_columns):
            for action, (down, right) in enumerate(_MOVES):
                if layout[row][column] in "HG":
                    down, right = 0, 0
                to_row = min(max(row + down, 0), n_rows - 1)
                to_column = min(max(column + right, 0), n_columns - 1)
                table[row * n_columns + column, action] = to_row * n_columns + to_column
    return table


def slip_table() -> np.ndarray:
    """
    Return the three directions of a slippery action, each of probability 1/3: its own and the two perpendicular ones.

    :return: directions, shape (4, 3)
    """
    return (np.arange(len(_MOVES))[:, None] + np.array(_SLIPS)) % len(_MOVES)


def cell_rewards(layout: Layout, penalty: float = LAKE_PENALTY) -> np.ndarray:
    """
    Return the reward of a step by the cell in which it ends.

    :param layout: map
    :param penalty: reward on penalty cells
    :return: shape (S,)
    """
    rewards = {"S": 0.0, "F": 0.0, "H": -1.0, "P": penalty, "G": 1.0}
    return np.array([rewards[cell] for cell in "".join(layout)])


def start_state(layout: Layout) -> int:
    """
    Return the number of the start cell.

    :param layout: map
    :return: state, cells numbered row by row
    """
    return "".join(layout).index("S")


def lake_mdp(
    layouts: list[Layout], gamma: float = LAKE_GAMMA, is_slippery: bool = False, penalty: float = LAKE_PENALTY
) -> FiniteMDP:
    """
    Return the Frozen Lakes of some layouts as a batch of MDPs, whose episodes start at ``S`` and never end.

    :param layouts: maps of one size
    :param gamma: discount factor in [0, 1)
    :param is_slippery: move in each direction but backwards with probability 1/3, as in Gymnasium's FrozenLake
    :param penalty: reward on penalty cells
    :return: batch of shape (n_tasks,) with S cells and 4 actions
    """
    return FiniteMDP.stack([_single_lake(check_layout(layout), gamma, is_slippery, penalty) for layout in layouts])


def _single_lake(layout: Layout, gamma: float, is_slippery: bool, penalty: float) -> FiniteMDP:
    moves = move_table(layout)
    outcomes = moves[:, slip_table()] if is_slippery else moves[:, :, None]
    transition = np.eye(len(moves))[outcomes].mean(axis=-2)
    initial = np.eye(len(moves))[start_state(layout)]
    reward = transition @ cell_rewards(layout, penalty)
    return FiniteMDP(th.as_tensor(transition), th.as_tensor(reward), th.as_tensor(initial), gamma)


def _layout(marked: np.ndarray, mark: str) -> Layout:
    cells = np.where(marked, mark, "F")
    cells[0, 0], cells[-1, -1] = "S", "G"
    return tuple("".join(row) for row in cells)


def _has_path(layout: Layout) -> bool:
    """Search for a path of unmarked cells from the start to a goal."""
    moves, cells = move_table(layout), "".join(layout)
    reached, frontier = {start_state(layout)}, [start_state(layout)]
    while frontier:
        state = frontier.pop()
        if cells[state] == "G":
            return True
        new = {int(to) for to in moves[state] if cells[to] not in "HP"} - reached
        reached |= new
        frontier.extend(new)
    return False
