"""Values, visitation and optima against sums over time, value iteration and enumeration."""

import itertools

import pytest
import torch as th

from sb3_bomrl.tabular import (
    FiniteMDP,
    adapt,
    expected_return,
    lake_mdp,
    optimal_policy,
    policy_value,
    sample_layouts,
    state_visitation,
)


def random_policy(mdp: FiniteMDP, seed: int) -> th.Tensor:
    generator = th.Generator().manual_seed(seed)
    return th.softmax(th.randn(mdp.reward.shape, generator=generator, dtype=th.float64), dim=-1)


def test_value_and_visitation_are_sums_over_time():
    mdp = FiniteMDP.random(5, 3, 0.8, seed=0, n_tasks=7)
    policy = random_policy(mdp, 1)
    distribution, horizon = mdp.initial, 300
    expected, visits = th.zeros(7, dtype=th.float64), th.zeros_like(mdp.initial)
    for t in range(horizon):
        rates = distribution.unsqueeze(-1) * policy
        expected += mdp.gamma**t * (rates * mdp.reward).sum((-1, -2))
        visits += (1 - mdp.gamma) * mdp.gamma**t * distribution
        distribution = th.einsum("nsa,nsat->nt", rates, mdp.transition)
    th.testing.assert_close(expected_return(mdp, policy), expected, rtol=0, atol=1e-12)
    th.testing.assert_close(state_visitation(mdp, policy), visits, rtol=0, atol=1e-12)


def test_bellman_equation_and_visitation_identity():
    mdp = FiniteMDP.random(6, 4, 0.97, seed=2, n_tasks=20)
    policy = random_policy(mdp, 3)
    values, q_values = policy_value(mdp, policy)
    th.testing.assert_close((policy * q_values).sum(-1), values, rtol=0, atol=1e-11)
    visitation = state_visitation(mdp, policy)
    th.testing.assert_close(visitation.sum(-1), th.ones(20, dtype=th.float64), rtol=0, atol=1e-12)
    rate = (visitation.unsqueeze(-1) * policy * mdp.reward).sum((-1, -2)) / (1 - mdp.gamma)
    th.testing.assert_close(rate, expected_return(mdp, policy), rtol=0, atol=1e-11)


def test_return_is_differentiable():
    mdp = FiniteMDP.random(4, 3, 0.9, seed=4, n_tasks=2)
    logits = random_policy(mdp, 5).log().requires_grad_(True)
    assert th.autograd.gradcheck(lambda z: expected_return(mdp, th.softmax(z, -1)), (logits,))
    assert th.autograd.gradcheck(lambda z: state_visitation(mdp, th.softmax(z, -1)), (logits,))


def test_optimum_is_the_best_of_all_deterministic_policies():
    mdp = FiniteMDP.random(4, 3, 0.9, seed=6, n_tasks=10)
    tables = th.tensor(list(itertools.product(range(3), repeat=4)))
    policies = th.nn.functional.one_hot(tables, 3).double().unsqueeze(1)
    best = policy_value(mdp, policies)[0].amax(0)
    policy, values = optimal_policy(mdp)
    th.testing.assert_close(values, best, rtol=0, atol=1e-12)
    th.testing.assert_close(policy_value(mdp, policy)[0], best, rtol=0, atol=1e-12)
    assert ((policy == 0) | (policy == 1)).all()


def test_ties_do_not_stop_policy_iteration():
    mdp = FiniteMDP.random(6, 4, 0.99, seed=7, n_tasks=50)
    tied = FiniteMDP(
        mdp.transition[:, :, :1].expand_as(mdp.transition), mdp.reward[:, :, :1].expand(-1, -1, 4), mdp.initial, 0.99
    )
    _, values = optimal_policy(tied)
    th.testing.assert_close(policy_value(tied, random_policy(tied, 8))[0], values, rtol=0, atol=1e-9)


def test_zero_discount_and_one_state():
    mdp = FiniteMDP([[[1.0], [1.0]]], [[1.0, 3.0]], [1.0], 0.0)
    assert expected_return(mdp, th.tensor([[0.5, 0.5]]).double()).item() == 2.0
    assert optimal_policy(mdp)[1].item() == 3.0


def test_batch_axes_broadcast():
    mdp = FiniteMDP.random(4, 3, 0.9, seed=9, n_tasks=5)
    policy = random_policy(mdp, 10)
    shared = expected_return(mdp, policy[0])
    each = expected_return(mdp, policy[0].expand(5, -1, -1))
    th.testing.assert_close(shared, each, rtol=0, atol=1e-14)
    crossed = expected_return(mdp, policy.unsqueeze(1))  # 5 policies x 5 tasks
    assert crossed.shape == (5, 5)
    th.testing.assert_close(crossed[2, 3], expected_return(mdp[3], policy[2]), rtol=0, atol=1e-14)


def test_wrong_policy_shape_is_named():
    with pytest.raises(ValueError, match=r"policy must have shape \(..., 4, 3\)"):
        policy_value(FiniteMDP.random(4, 3, 0.9, 0), th.ones(3, 4, dtype=th.float64))


def test_what_is_no_policy_is_named():
    mdp = FiniteMDP.random(4, 3, 0.9, 0)
    with pytest.raises(ValueError, match="sums from 3 to 3"):
        policy_value(mdp, th.ones(4, 3))
    with pytest.raises(ValueError, match="sum to 1 over the actions"):
        state_visitation(mdp, th.full((4, 3), th.nan))


def test_single_precision_policies_are_accepted():
    mdp, policy = FiniteMDP.random(4, 3, 0.9, 0), th.full((4, 3), 1 / 3)
    th.testing.assert_close(expected_return(mdp, policy), expected_return(mdp, policy.double()))
    assert adapt(mdp, th.zeros(4, 3), "kl_task_meta", 1.0).dtype == th.float64


@pytest.mark.parametrize("family", ["high_variance", "low_variance"])
def test_frozen_lake_optimum(family):
    """Six steps to a goal that pays for ever: gamma^5 / (1 - gamma)."""
    mdps = lake_mdp(sample_layouts(family, 20, seed=0))
    _, values = optimal_policy(mdps)
    th.testing.assert_close(values[:, 0], th.full((20,), 0.8**5 / 0.2, dtype=th.float64), rtol=0, atol=1e-12)
