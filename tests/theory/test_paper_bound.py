"""B3 and B4 as certificates: the paper's bound, its condition, and adaptations that were not solved exactly."""

import numpy as np
import pytest
import torch as th

from sb3_bomrl.tabular import FiniteMDP, adapt, adaptation_path, optimal_policy
from sb3_bomrl.theory import adaptation_certificate, bounds, comparators, optimality_gap
from sb3_bomrl.theory.comparators import N_OPTIMAL_FAMILY

DISTANCES = ["kl_meta_task", "kl_task_meta", "parameter"]


def random_logits(*shape: int, seed: int, spread: float = 1.5) -> th.Tensor:
    return spread * th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


@pytest.mark.parametrize("distance", DISTANCES)
def test_b4_flag_is_its_condition_and_matters(distance):
    """Over many instances the flag is both true and false, and below the smallest lambda the value is no bound."""
    mdp = FiniteMDP.random(4, 3, 0.9, seed=13, n_tasks=400)
    meta_logits = random_logits(400, 4, 3, seed=14)
    shares, violations = [], []
    for reg_coef in (1e-4, 0.05, 1e3):
        gap = optimality_gap(mdp, adapt(mdp, meta_logits, distance, reg_coef))
        value, holds = bounds(mdp, meta_logits.softmax(-1), distance, reg_coef)["paper"]
        shares.append(holds.double().mean().item())
        violations.append((value < gap - 1e-9)[~holds].double().sum().item())
        assert (value >= gap - 1e-9)[holds].all()
    assert shares[0] < 0.5
    assert shares[2] == 1.0
    assert violations[0] > 0


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("reg_coef", [0.02, 0.3, 5.0])
def test_b4_is_recomputed_from_its_definition(distance, reg_coef):
    """Value and flag in NumPy, one task and one comparator at a time, from |e| <= gamma lambda / (1 - gamma) D."""
    mdps, gamma = FiniteMDP.random(3, 2, 0.9, seed=30, n_tasks=25), 0.9
    meta_policy = random_logits(25, 3, 2, seed=31).softmax(-1)
    values, flags = bounds(mdps, meta_policy, distance, reg_coef)["paper"]
    family = comparators(mdps, meta_policy.log())[0][:N_OPTIMAL_FAMILY]
    adapted = adaptation_path(mdps, meta_policy.log(), distance, reg_coef)[-1]
    for task in range(25):
        transition, reward = mdps.transition[task].numpy(), mdps.reward[task].numpy()
        start, phi = mdps.initial[task].numpy(), meta_policy[task].numpy()

        def solved(policy, transition=transition, reward=reward, start=start):
            matrix = np.eye(3) - gamma * np.einsum("sa,sat->st", policy, transition)
            value = np.linalg.solve(matrix, (policy * reward).sum(1))
            return value, start @ value, (1 - gamma) * np.linalg.solve(matrix.T, start)

        value, base_return, visitation = solved(phi)
        advantages = reward + gamma * transition @ value - value[:, None]

        def terms(  # the defaults bind the loop variables
            logits,
            is_theta=False,
            solved=solved,
            visitation=visitation,
            advantages=advantages,
            phi=phi,
            base=base_return,
        ):
            policy = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
            with np.errstate(divide="ignore", invalid="ignore"):
                if distance == "parameter":
                    level = (np.log(phi) - logits).mean(1, keepdims=True)
                    shift = np.where(np.isfinite(level), level, 0.0) if not is_theta else 0.0
                    apart = ((logits + shift - np.log(phi)) ** 2).sum()
                else:
                    p, q = (phi, policy) if distance == "kl_meta_task" else (policy, phi)
                    apart = visitation @ np.where(p > 0, p * np.log(p / q), 0.0).sum(1)
            linear = visitation @ (policy * advantages).sum(1)
            error = solved(policy)[1] - base - linear / (1 - gamma)
            return solved(policy)[1], abs(error) <= gamma * reg_coef / (1 - gamma) * apart + 1e-10, apart, linear

        optimum = solved(optimal_policy(mdps[task])[0].numpy())[1]
        _, own_condition, own_distance, own_gain = terms(adapted[task].numpy(), is_theta=True)
        candidates = []
        for other in family[:, task].numpy():
            reached, condition, apart, gain = terms(other)
            solves = reg_coef * own_distance - own_gain <= reg_coef * apart - gain + 1e-10
            bound = optimum - reached + reg_coef * (1 + gamma) / (1 - gamma) * apart
            candidates.append((bound, condition and own_condition and solves))
        holding = [bound for bound, holds in candidates if holds]
        assert bool(flags[task]) == bool(holding)
        expected = min(holding) if holding else min(bound for bound, _ in candidates)
        assert values[task].item() == pytest.approx(expected, abs=1e-8)
    assert distance == "parameter" or reg_coef != 0.3 or 0 < flags.double().mean() < 1


def test_b4_flag_with_one_comparator_by_hand():
    """One state: J = <r, pi> / (1 - gamma), the surrogate is exact, e = 0, and the condition holds for any lambda."""
    mdp = FiniteMDP(th.ones(1, 2, 1), th.tensor([[0.0, 1.0]]), th.ones(1), 0.5)
    meta_policy = th.tensor([[0.5, 0.5]], dtype=th.float64)
    value, holds = bounds(mdp, meta_policy, "kl_task_meta", 0.01)["paper"]
    assert bool(holds)
    # The optimum is in the family: lambda (1 + gamma) / (1 - gamma) KL(pi* || uniform) = 0.01 * 3 * log 2.
    assert value.item() <= 0.03 * 0.6931472 + 1e-9
    assert value.item() >= optimality_gap(mdp, adapt(mdp, meta_policy.log(), "kl_task_meta", 0.01)).item()


def test_b4_flag_sees_a_lower_level_that_is_stuck():
    """
    One state again, e = 0; but from a meta-policy that all but excludes the good action Alg(3) stays where it is.

    Without the condition, the nearest comparators would give a value below the gap.
    """
    mdp = FiniteMDP(th.ones(1, 2, 1), th.tensor([[0.0, 1.0]]), th.ones(1), 0.5)
    meta_logits, reg_coef = th.tensor([[10.0, -10.0]], dtype=th.float64), 1e-3
    gap = optimality_gap(mdp, adapt(mdp, meta_logits, "parameter", reg_coef)).item()
    result = bounds(mdp, meta_logits.softmax(-1), "parameter", reg_coef)
    value, holds = result["paper"]
    assert gap == pytest.approx(2.0, abs=1e-5)
    assert result["B3"].item() >= gap - 1e-9
    assert bool(holds)
    assert value.item() >= gap
    log_family = comparators(mdp, meta_logits)[0][:N_OPTIMAL_FAMILY]
    level = (meta_logits - log_family).mean(-1, keepdim=True)
    apart = (log_family + level - meta_logits).square().sum((-1, -2))
    unconditional = optimality_gap(mdp, log_family.exp()) + 3 * reg_coef * apart  # (1 + gamma) / (1 - gamma) = 3
    assert unconditional[unconditional.isfinite()].min() < gap


@pytest.mark.parametrize("distance", DISTANCES)
def test_certificate_of_an_adaptation_that_was_not_solved_exactly(distance):
    """It bounds the gap whatever the adapted logits are, and for the exact ones it is B3 and B4 of ``bounds``."""
    mdp, reg_coef = FiniteMDP.random(4, 3, 0.9, seed=20, n_tasks=200), 0.2
    meta_logits = random_logits(200, 4, 3, seed=21).log_softmax(-1)
    exact = adaptation_path(mdp, meta_logits, distance, reg_coef)[-1]
    for seed, scale in enumerate((0.01, 0.3, 3.0)):
        adapted = exact + scale * random_logits(200, 4, 3, seed=22 + seed)
        gap = optimality_gap(mdp, adapted.softmax(-1))
        certificate, (value, holds) = adaptation_certificate(mdp, meta_logits, adapted, distance, reg_coef)
        assert (certificate >= gap - 1e-9).all()
        assert (value >= gap - 1e-9)[holds].all()
    certificate, paper = adaptation_certificate(mdp, meta_logits, exact, distance, reg_coef)
    result = bounds(mdp, meta_logits.softmax(-1), distance, reg_coef)
    th.testing.assert_close(certificate, result["B3"], rtol=0, atol=1e-9)
    th.testing.assert_close(paper[0], result["paper"][0], rtol=0, atol=1e-9)
    assert th.equal(paper[1], result["paper"][1])
