r"""
The two Frozen Lake families as tables: hole layouts (high task variance) and penalty layouts (low task variance).

A layout is a tuple of row strings of ``S`` (start), ``G`` (goal), ``F`` (frozen), ``H`` (hole) and ``P`` (penalty).
Every step pays for the cell it ends in: +1 at the goal, -1 in a hole, ``penalty`` on a penalty cell. The goal and the
holes absorb and keep paying. With a 6-step path and gamma 0.8 the optimum is :math:`\gamma^5 / (1 - \gamma) = 1.6384`.
"""

import numpy as np
import torch as th

from sb3_bomrl.tabular.mdp import FiniteMDP

Layout = tuple[str, ...]

LAKE_SIZE = 4
LAKE_GAMMA = 0.8
LAKE_PENALTY = -0.5
FROZEN_PROBABILITY = 0.8
FAMILIES = {"high_variance": "H", "low_variance": "P"}
"""What marks the cells in which the layouts of a family differ."""

_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""(row, column) steps of the actions left, down, right, up, numbered as in Gymnasium's FrozenLake."""
_SLIPS = (-1, 0, 1)


def sample_layouts(
    family: str,
    n_layouts: int,
    seed: int,
    size: int = LAKE_SIZE,
    frozen_probability: float = FROZEN_PROBABILITY,
    exclude: tuple[Layout, ...] = (),
) -> list[Layout]:
    """
    Draw different layouts in which a path of frozen cells leads from the start, top left, to the goal, bottom right.

    :param family: ``"high_variance"`` (marked cells are holes) or ``"low_variance"`` (marked cells cost a penalty)
    :param n_layouts: number of layouts
    :param seed: seed of the draw
    :param size: side of the square map
    :param frozen_probability: chance that a cell is frozen, in (0, 1)
    :param exclude: layouts that must not be drawn, e.g. those of training
    :return: ``n_layouts`` layouts, all different
    :raises ValueError: if an argument is out of range, or so few layouts exist that the draw does not end
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {sorted(FAMILIES)}, got {family!r}")
    if not 0 < frozen_probability < 1:
        raise ValueError(f"frozen_probability must lie in (0, 1), got {frozen_probability}")
    if size < 2 or n_layouts < 1:
        raise ValueError(f"size must be at least 2 and n_layouts at least 1, got {size} and {n_layouts}")
    rng = np.random.default_rng(seed)
    seen = set(exclude)
    layouts: list[Layout] = []
    for _ in range(1000 * n_layouts):
        marked = rng.random((size, size)) >= frozen_probability
        layout = _layout(marked, FAMILIES[family])
        if layout not in seen and _has_path(layout):
            seen.add(layout)
            layouts.append(layout)
        if len(layouts) == n_layouts:
            return layouts
    raise ValueError(
        f"n_layouts={n_layouts} different maps of size {size} with frozen_probability={frozen_probability} were not "
        "found in 1000 draws each: ask for fewer, or for larger maps"
    )


def check_layout(layout: Layout) -> Layout:
    """
    Validate a layout and return it as a tuple of strings.

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
    Where each direction leads: the cell beyond, the same cell at the border, and no way out of holes and goals.

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
    Directions that a slippery action may turn into, each with probability 1/3: itself and the two perpendicular ones.

    :return: directions, shape (4, 3)
    """
    return (np.arange(len(_MOVES))[:, None] + np.array(_SLIPS)) % len(_MOVES)


def cell_rewards(layout: Layout, penalty: float = LAKE_PENALTY) -> np.ndarray:
    """
    Reward of a step by the cell it ends in.

    :param layout: map
    :param penalty: reward on penalty cells
    :return: shape (S,)
    """
    rewards = {"S": 0.0, "F": 0.0, "H": -1.0, "P": penalty, "G": 1.0}
    return np.array([rewards[cell] for cell in "".join(layout)])


def start_state(layout: Layout) -> int:
    """
    Number of the start cell.

    :param layout: map
    """
    return "".join(layout).index("S")


def lake_mdp(
    layouts: list[Layout], gamma: float = LAKE_GAMMA, is_slippery: bool = False, penalty: float = LAKE_PENALTY
) -> FiniteMDP:
    """
    The Frozen Lakes of some layouts as a batch of MDPs; episodes start at ``S`` and never end.

    :param layouts: maps of one size
    :param gamma: discount factor
    :param is_slippery: whether a move goes astray as in Gymnasium's FrozenLake (1/3 each way but backwards)
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
    """Whether unmarked cells lead from the start to a goal."""
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
