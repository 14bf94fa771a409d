"""Layouts and tables of the Frozen Lakes."""

import gymnasium as gym
import pytest
import torch as th

from sb3_bomrl.tabular import FiniteMDP, lake_mdp, sample_layouts
from sb3_bomrl.tabular.lakes import check_layout


def reachable(layout: tuple[str, ...]) -> set[tuple[int, int]]:
    """Flood fill of the unmarked cells from the top left corner, by repeated sweeps."""
    size = len(layout)
    cells = {(0, 0)}
    for _ in range(size * size):
        neighbours = {(r + dr, c + dc) for r, c in cells for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        cells |= {(r, c) for r, c in neighbours if 0 <= r < size and 0 <= c < size and layout[r][c] in "FG"}
    return cells


@pytest.mark.parametrize(("family", "mark"), [("high_variance", "H"), ("low_variance", "P")])
def test_layouts_have_a_path_and_differ(family, mark):
    layouts = sample_layouts(family, 200, seed=1)
    assert len(set(layouts)) == 200
    assert layouts[:20] == sample_layouts(family, 20, seed=1)
    for layout in layouts:
        assert (layout[0][0], layout[-1][-1]) == ("S", "G")
        assert set("".join(layout)) <= {"S", "F", "G", mark}
        assert (3, 3) in reachable(layout)


def test_share_of_marked_cells():
    """Before maps without a path or drawn before are dropped it is 0.2; dropping makes it smaller, but not by much."""
    cells = "".join("".join(layout) for layout in sample_layouts("high_variance", 300, 0, size=6))
    share = cells.count("H") / (300 * 34)
    assert 0.15 < share < 0.2


@pytest.mark.parametrize("is_slippery", [False, True])
def test_moves_are_those_of_gymnasium(is_slippery):
    """Where the cell is neither hole nor goal, the transitions are those of FrozenLake-v1 on the same map."""
    layout = ("SFFF", "FHFH", "FFFH", "HFFG")
    env = gym.make("FrozenLake-v1", desc=list(layout), is_slippery=is_slippery)
    theirs, ours = FiniteMDP.from_env(env), lake_mdp([layout], is_slippery=is_slippery)[0]
    th.testing.assert_close(ours.transition, theirs.transition, rtol=0, atol=1e-15)
    env.close()


def test_rewards_and_absorption():
    mdp = lake_mdp([("SFFF", "FHFH", "FFFH", "HFFG"), ("SPFF", "FFFF", "FFFF", "FFFG")], penalty=-0.5)
    assert mdp.reward[0, 15].tolist() == [1.0] * 4
    assert mdp.reward[0, 5].tolist() == [-1.0] * 4
    assert mdp.transition[0, [5, 15], :, [5, 15]].eq(1).all()
    assert mdp.reward[0, 14].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert mdp.reward[1, 0].tolist() == [0.0, 0.0, -0.5, 0.0]
    assert mdp.transition[1, 1, :, 1].tolist() == [0.0, 0.0, 0.0, 1.0]  # only the wall above holds the agent
    assert th.equal(mdp.initial, th.eye(16).double()[[0, 0]])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="family must be one of"):
        sample_layouts("medium", 1, 0)
    with pytest.raises(ValueError, match="size must be at least 2"):
        sample_layouts("high_variance", 1, 0, size=1)
    with pytest.raises(ValueError, match="were not found"):
        sample_layouts("high_variance", 4, 0, size=2)  # there are three: one of two cells may be a hole, or none
    with pytest.raises(ValueError, match="rows of one length"):
        check_layout(("SF", "FFG"))
    with pytest.raises(ValueError, match="one start S and a goal G"):
        check_layout(("SS", "FG"))
