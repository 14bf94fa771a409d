"""No bound is ever violated: B1 to B4 on thousands of random MDPs, state by state where the statement is."""

import itertools

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_bomrl.tabular import (
    FiniteMDP,
    adapt,
    adaptation_path,
    expected_return,
    lower_level_objective,
    optimal_policy,
    policy_value,
    state_visitation,
)
from sb3_bomrl.tabular.distances import expected_distance, state_distances
from sb3_bomrl.tabular.solvers import transition_under
from sb3_bomrl.theory import (
    adaptation_certificate,
    bounds,
    comparators,
    expected_bounds,
    optimality_gap,
    surrogate_error,
    task_variance,
    variance_minimizing_policy,
)

DISTANCES = ["kl_meta_task", "kl_task_meta", "parameter"]
KL_DISTANCES = DISTANCES[:2]


def random_logits(*shape: int, seed: int, spread: float = 1.5) -> th.Tensor:
    return spread * th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def assert_no_violation(mdp: FiniteMDP, meta_logits: th.Tensor, distance: str, reg_coef: float, n_steps: int) -> None:
    gap = optimality_gap(mdp, adapt(mdp, meta_logits, distance, reg_coef, n_steps))
    result = bounds(mdp, meta_logits.softmax(-1), distance, reg_coef, n_steps)
    value, holds = result["paper"]
    slack = 1e-9 * (1 + reg_coef + mdp.reward.abs().amax((-1, -2)) / (1 - mdp.gamma))
    for name in ("B1", "B2", "B3"):
        assert (result[name] >= gap - slack).all(), name
    assert (value >= gap - slack)[holds].all()
    assert (gap >= -slack).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("reg_coef", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_no_violation_on_thousands_of_mdps(distance, reg_coef, n_steps):
    mdp = FiniteMDP.random(4, 3, 0.9, seed=n_steps, n_tasks=250)
    assert_no_violation(mdp, random_logits(250, 4, 3, seed=1), distance, reg_coef, n_steps)


@settings(max_examples=60, deadline=None)
@given(
    distance=st.sampled_from(DISTANCES),
    n_states=st.integers(1, 6),
    n_actions=st.integers(1, 4),
    gamma=st.floats(0.0, 0.97),
    reg_exponent=st.floats(-4.0, 4.0),
    n_steps=st.integers(1, 4),
    spread=st.floats(0.0, 6.0),
    seed=st.integers(0, 10**6),
)
def test_no_violation_on_mdps_of_all_sizes(distance, n_states, n_actions, gamma, reg_exponent, n_steps, spread, seed):
    mdp = FiniteMDP.random(n_states, n_actions, gamma, seed, n_tasks=20)
    meta_logits = random_logits(20, n_states, n_actions, seed=seed, spread=spread)
    assert_no_violation(mdp, meta_logits, distance, 10.0**reg_exponent, n_steps)


@pytest.mark.parametrize("distance", KL_DISTANCES)
@pytest.mark.parametrize("reg_coef", [0.05, 1.0])
def test_b1_holds_state_by_state(distance, reg_coef):
    """(i) V' >= V^phi and (ii) the pointwise bound, for arbitrary comparators, not only near-optimal ones."""
    mdp = FiniteMDP.random(5, 3, 0.9, seed=2, n_tasks=1000)
    meta_logits = random_logits(1000, 5, 3, seed=3)
    adapted = adaptation_path(mdp, meta_logits, distance, reg_coef)[-1]
    base_values, _ = policy_value(mdp, meta_logits.softmax(-1))
    values, _ = policy_value(mdp, adapted.softmax(-1))
    assert (values >= base_values - 1e-10).all()
    for seed in range(4):
        comparator = random_logits(1000, 5, 3, seed=10 + seed, spread=3.0)
        others, _ = policy_value(mdp, comparator.softmax(-1))
        ahead = transition_under(mdp, comparator.softmax(-1)) @ (others - base_values).unsqueeze(-1)
        needed = state_distances(distance, meta_logits, comparator)
        spent = state_distances(distance, meta_logits, adapted)
        assert (others - values <= mdp.gamma * ahead.squeeze(-1) + reg_coef * (needed - spent) + 1e-10).all()


def test_b2_every_step_of_its_proof():
    """Three-point identity, performance difference, and the step that B1(i) gives, one by one."""
    mdp = FiniteMDP.random(5, 3, 0.9, seed=4, n_tasks=200)
    reg_coef = 0.4
    path = adaptation_path(mdp, random_logits(200, 5, 3, seed=5), "kl_task_meta", reg_coef, 3)
    optimum, optimal_values = optimal_policy(mdp)
    visitation = state_visitation(mdp, optimum)

    def divergence(log_policy: th.Tensor) -> th.Tensor:
        return state_distances("kl_task_meta", log_policy, optimum.log())

    for before, after in itertools.pairwise(path):
        values, q_values = policy_value(mdp, before.exp())
        next_values, _ = policy_value(mdp, after.exp())
        step = state_distances("kl_task_meta", before, after)
        identity = reg_coef * (divergence(before) - divergence(after) - step)
        th.testing.assert_close((q_values * (optimum - after.exp())).sum(-1), identity, rtol=0, atol=1e-9)
        assert ((q_values * (after.exp() - before.exp())).sum(-1) <= next_values - values + 1e-10).all()
        lemma = (visitation * (q_values * (optimum - before.exp())).sum(-1)).sum(-1) / (1 - mdp.gamma)
        difference = (mdp.initial * (optimal_values - values)).sum(-1)
        th.testing.assert_close(difference, lemma, rtol=0, atol=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_b3_holds_for_any_policy_and_comparator(distance):
    """Also for policies that solve nothing: epsilon then says by how much they miss."""
    mdp = FiniteMDP.random(4, 3, 0.9, seed=6, n_tasks=500)
    base, policy, comparator = (random_logits(500, 4, 3, seed=seed) for seed in (7, 8, 9))
    reg_coef = 0.3
    visitation = state_visitation(mdp, base.softmax(-1))

    def needed(logits: th.Tensor) -> th.Tensor:
        return expected_distance(distance, visitation, base, logits)

    def objective(logits: th.Tensor) -> th.Tensor:
        return reg_coef * lower_level_objective(mdp, base, logits, distance, reg_coef)

    excess = (objective(policy) - objective(comparator)).clamp_min(0.0)
    errors = surrogate_error(mdp, base, comparator.softmax(-1)) - surrogate_error(mdp, base, policy.softmax(-1))
    bound = (reg_coef * (needed(comparator) - needed(policy)) + excess) / (1 - mdp.gamma) + errors
    gain = expected_return(mdp, comparator.softmax(-1)) - expected_return(mdp, policy.softmax(-1))
    assert (bound >= gain - 1e-9).all()
    missed = objective(policy) > objective(comparator)
    assert 0.2 < missed.double().mean() < 0.8
    th.testing.assert_close(bound[missed], gain[missed], rtol=0, atol=1e-9)  # an identity where epsilon is at work


def test_surrogate_error_is_of_second_order():
    """e(phi) = 0, and halving a small step divides e by four."""
    mdp = FiniteMDP.random(4, 3, 0.9, seed=10, n_tasks=50)
    base, direction = random_logits(50, 4, 3, seed=11), random_logits(50, 4, 3, seed=12)
    assert surrogate_error(mdp, base, base.softmax(-1)).abs().max() < 1e-12
    errors = [surrogate_error(mdp, base, (base + step * direction).softmax(-1)) for step in (2e-4, 1e-4)]
    th.testing.assert_close(errors[0] / errors[1], th.full((50,), 4.0, dtype=th.float64), rtol=0.05, atol=0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_bounds_of_a_batch_are_those_of_each_task_and_expectations_their_means(distance):
    mdps = FiniteMDP.random(4, 3, 0.9, seed=40, n_tasks=5)
    meta_policy = random_logits(4, 3, seed=41).softmax(-1)
    batch, expected = bounds(mdps, meta_policy, distance, 0.3, 2), expected_bounds(mdps, meta_policy, distance, 0.3, 2)
    alone = [bounds(mdps[index], meta_policy, distance, 0.3, 2) for index in range(5)]
    for name in ("B1", "B2", "B3"):
        values = th.stack([one[name] for one in alone])
        th.testing.assert_close(batch[name], values, rtol=0, atol=1e-9)
        th.testing.assert_close(expected[name], values.mean(), rtol=0, atol=1e-9)
    for part in (0, 1):
        assert th.allclose(batch["paper"][part].double(), th.stack([one["paper"][part] for one in alone]).double())
    assert bool(expected["paper"][1]) == bool(batch["paper"][1].all())
    assert expected["paper"][0].item() == pytest.approx(batch["paper"][0].mean().item())


def test_bounds_of_one_state_by_hand():
    """One state, no future: B1 is lambda [KL(pi*, phi) - KL(pi', phi)] at most, B2 the same with K = 1."""
    mdp = FiniteMDP(th.ones(1, 2, 1), th.tensor([[0.0, 1.0]]), th.ones(1), 0.0)
    meta_policy, reg_coef = th.tensor([[0.5, 0.5]], dtype=th.float64), 0.5
    best = 1 / (1 + th.exp(th.tensor(-1 / reg_coef, dtype=th.float64)))
    spent = (best * (2 * best).log() + (1 - best) * (2 * (1 - best)).log()).item()
    result = bounds(mdp, meta_policy, "kl_task_meta", reg_coef)
    assert result["B1"].item() <= reg_coef * (0.6931472 - spent) + 1e-7
    assert result["B1"].item() >= (1 - best).item()
    # With the optimum as the comparator B2 = lambda log 2 + V' - V = 0.5 log 2 + best - 0.5.
    assert (1 - best).item() <= result["B2"].item() <= 0.5 * 0.6931472 + best.item() - 0.5 + 1e-7
    assert bounds(mdp, meta_policy, "parameter", reg_coef)["B1"].item() == float("inf")
    assert bounds(mdp, meta_policy, "kl_meta_task", reg_coef)["B2"].item() == float("inf")


def test_comparators():
    mdp, base = FiniteMDP.random(4, 3, 0.9, seed=15, n_tasks=10), random_logits(10, 4, 3, seed=17)
    log_family, values = comparators(mdp, base)
    family = log_family.exp()
    th.testing.assert_close(family.sum(-1), th.ones_like(family[..., 0]), rtol=0, atol=1e-12)
    gaps = optimality_gap(mdp, family)
    assert (gaps >= -1e-9).all()
    assert gaps[:2].abs().max() < 1e-9
    assert (log_family[2:] > -th.inf).all()
    th.testing.assert_close(values, optimal_policy(mdp)[1], rtol=0, atol=0)


def test_second_comparator_is_the_closest_optimum():
    """Where all actions are optimal it is the meta-policy itself; where one is, the optimum."""
    transition = th.full((2, 3, 2), 0.5, dtype=th.float64)
    reward = th.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]])
    mdp, base = FiniteMDP(transition, reward, th.tensor([0.5, 0.5]), 0.9), random_logits(2, 3, seed=18)
    closest = comparators(mdp, base)[0][1].exp()
    th.testing.assert_close(closest[0], base[0].softmax(-1), rtol=0, atol=1e-12)
    assert closest[1].tolist() == [0.0, 1.0, 0.0]


def test_task_variance_by_hand():
    """Two one-state tasks with opposite optima around the uniform policy: log 2; around the right one for a task: 0."""
    reward = th.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    mdps = FiniteMDP(th.ones(2, 1, 2, 1), reward, th.ones(2, 1), 0.5)
    uniform = th.tensor([[0.5, 0.5]], dtype=th.float64)
    assert task_variance(mdps, uniform).item() == pytest.approx(0.6931472, abs=1e-7)
    own = th.tensor([[[0.0, 1.0]], [[1.0, 0.0]]], dtype=th.float64)
    assert task_variance(mdps, own).item() == 0.0
    skewed = th.tensor([[0.1, 0.9]], dtype=th.float64)
    assert task_variance(mdps, skewed).item() > task_variance(mdps, uniform).item()


def test_no_policy_has_a_smaller_task_variance_than_the_minimizing_one():
    mdps = FiniteMDP.random(5, 3, 0.9, seed=16, n_tasks=8)
    best = variance_minimizing_policy(mdps)
    th.testing.assert_close(best.sum(-1), th.ones(5, dtype=th.float64), rtol=0, atol=1e-12)
    smallest = task_variance(mdps, best)
    assert 0 < smallest < float("inf")
    for seed in range(40):
        noise = random_logits(5, 3, seed=seed)
        assert task_variance(mdps, noise.softmax(-1)) > smallest
        assert task_variance(mdps, 0.99 * best + 0.01 * noise.softmax(-1)) > smallest - 1e-12
    assert task_variance(mdps[:1], variance_minimizing_policy(mdps[:1])).abs() < 1e-12


def test_bad_arguments_are_named():
    mdp = FiniteMDP.random(2, 2, 0.5, 0)
    with pytest.raises(ValueError, match="n_adaptation_steps must be an integer of at least 1, got 0"):
        bounds(mdp, th.full((2, 2), 0.5, dtype=th.float64), "kl_task_meta", 1.0, 0)
    with pytest.raises(ValueError, match="meta_policy must be positive"):
        bounds(mdp, th.eye(2, dtype=th.float64), "kl_task_meta", 1.0)
    table = th.zeros(2, 2)
    with pytest.raises(ValueError, match=r"reg_coef must be a finite number above 0, got 0\.0"):
        adaptation_certificate(mdp, table, table, "kl_task_meta", 0.0)
    with pytest.raises(ValueError, match="distance must be one of"):
        adaptation_certificate(mdp, table, table, "l2", 1.0)
