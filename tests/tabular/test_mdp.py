"""Validation, batches and readers of FiniteMDP."""

import gymnasium as gym
import pytest
import torch as th

from sb3_bomrl.tabular import FiniteMDP, expected_return, optimal_policy


def arrays(n_states: int = 3, n_actions: int = 2) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    transition = th.full((n_states, n_actions, n_states), 1 / n_states, dtype=th.float64)
    return transition, th.zeros(n_states, n_actions, dtype=th.float64), th.full((n_states,), 1 / n_states)


def test_accepts_lists_and_single_precision():
    mdp = FiniteMDP([[[1.0]]], [[2.0]], [1.0], 0.5)
    assert mdp.transition.dtype == mdp.reward.dtype == th.float64
    assert (mdp.n_states, mdp.n_actions, mdp.batch_shape) == (1, 1, ())


def test_row_that_does_not_sum_to_one_is_named():
    transition, reward, initial = arrays()
    transition[2, 1, 0] += 0.25
    with pytest.raises(ValueError, match=r"transition .* sum 1\.25 .* row \(2, 1\)"):
        FiniteMDP(transition, reward, initial, 0.9)


def test_negative_probability_is_named():
    transition, reward, initial = arrays()
    transition[0, 1] = th.tensor([-0.5, 1.0, 0.5])
    with pytest.raises(ValueError, match=r"minimum -0\.5 in row \(0, 1\)"):
        FiniteMDP(transition, reward, initial, 0.9)


def test_initial_distribution_is_checked():
    transition, reward, initial = arrays()
    with pytest.raises(ValueError, match="initial must hold probabilities"):
        FiniteMDP(transition, reward, initial * 0.5, 0.9)


@pytest.mark.parametrize("gamma", [1.0, -0.1, float("nan")])
def test_gamma_is_checked(gamma):
    with pytest.raises(ValueError, match="gamma must satisfy"):
        FiniteMDP(*arrays(), gamma)


def test_infinite_reward_is_named():
    transition, reward, initial = arrays()
    reward[1, 0] = th.inf
    with pytest.raises(ValueError, match=r"reward must be finite, got inf at \(1, 0\)"):
        FiniteMDP(transition, reward, initial, 0.9)


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [(0, (3, 2, 4), r"transition must have shape"), (1, (2, 3), "reward must"), (2, (4,), "initial must")],
)
def test_shapes_are_checked(index, shape, message):
    tables = list(arrays())
    tables[index] = th.zeros(shape)
    with pytest.raises(ValueError, match=message):
        FiniteMDP(*tables, 0.9)


def test_stack_and_index():
    mdps = [FiniteMDP.random(4, 3, 0.9, seed) for seed in range(3)]
    batch = FiniteMDP.stack(mdps)
    assert batch.batch_shape == (3,)
    assert th.equal(batch[1].reward, mdps[1].reward)
    assert batch[th.tensor([0, 2])].batch_shape == (2,)
    with pytest.raises(ValueError, match="one size and one gamma"):
        FiniteMDP.stack([mdps[0], FiniteMDP.random(4, 3, 0.8, 0)])
    with pytest.raises(ValueError, match="at least one"):
        FiniteMDP.stack([])
    with pytest.raises(ValueError, match="no batch axis"):
        mdps[0][0]


def test_random_is_seeded_and_a_garnet():
    first, again, other = (FiniteMDP.random(6, 3, 0.9, seed, n_tasks=5) for seed in (1, 1, 2))
    assert th.equal(first.transition, again.transition)
    assert not th.equal(first.transition, other.transition)
    assert ((first.transition > 0).sum(-1) == 3).all()
    assert first.batch_shape == (5,)
    with pytest.raises(ValueError, match="n_states must be an integer of at least 1, got 0"):
        FiniteMDP.random(0, 3, 0.9, 0)


def value_iteration(table: dict, gamma: float, n_sweeps: int) -> list[float]:
    """Values of Gymnasium's own table, in which nothing follows a termination."""
    values = [0.0] * len(table)
    for _ in range(n_sweeps):
        values = [
            max(sum(p * (r + gamma * values[s] * (not end)) for p, s, r, end in outcomes) for outcomes in row.values())
            for row in table.values()
        ]
    return values


@pytest.mark.parametrize(
    ("env_id", "n_states", "kwargs"),
    [
        ("FrozenLake-v1", 16, {"is_slippery": True}),
        ("FrozenLake-v1", 16, {"is_slippery": False}),
        ("CliffWalking-v1", 49, {}),  # ends in the goal, which is no absorbing state in the table
        (max(name for name in gym.registry if name.startswith("Taxi-v")), 501, {}),  # ends at the destination, likewise
    ],
)
def test_from_toy_text_env(env_id, n_states, kwargs):
    """The optimal values are those of value iteration on the environment's own table."""
    env = gym.make(env_id, **kwargs)
    mdp = FiniteMDP.from_env(env, gamma=0.8)
    assert mdp.n_states == n_states
    _, values = optimal_policy(mdp)
    reference = value_iteration(env.unwrapped.P, 0.8, 100)
    th.testing.assert_close(values[: len(reference)], th.tensor(reference).double(), rtol=0, atol=1e-5)
    env.close()


def test_from_env_default_gamma_and_errors():
    env = gym.make("FrozenLake-v1")
    assert FiniteMDP.from_env(env).gamma == 0.99
    with pytest.raises(ValueError, match="tables P"):
        FiniteMDP.from_env(gym.make("CartPole-v1"))


def test_end_state_pays_nothing():
    """One step that ends the episode with reward 5, in a table whose next state would go on paying."""

    class Table:
        P = {0: {0: [(1.0, 1, 5.0, True)]}, 1: {0: [(1.0, 1, 7.0, False)]}}
        initial_state_distrib = [1.0, 0.0]

    mdp = FiniteMDP.from_env(Table(), gamma=0.5)
    assert mdp.n_states == 3
    assert expected_return(mdp, th.ones(3, 1, dtype=th.float64)).item() == 5.0
