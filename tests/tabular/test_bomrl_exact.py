"""Meta-training on exact values: what it reaches in Frozen Lake, and that it is gradient ascent."""

import time

import pytest
import torch as th

from sb3_bomrl.tabular import (
    BOMRLExact,
    FiniteMDP,
    MAMLExact,
    SharedPolicyExact,
    adapt,
    adaptation_path,
    expected_return,
    lake_mdp,
    mean_optimal_policy,
    policy_gradient_step,
    random_logits,
    sample_layouts,
)


@pytest.fixture(scope="module")
def lakes() -> FiniteMDP:
    return lake_mdp(sample_layouts("high_variance", 20, seed=0))


def test_adapted_returns_from_the_uniform_policy(lakes):
    """The specification's figures for one exact adaptation on 20 random lakes."""
    uniform = th.zeros(16, 4, dtype=th.float64)
    for distance, reg_coef, expected in [
        ("kl_meta_task", 0.1, 0.42),
        ("kl_task_meta", 0.2, 0.43),
        ("kl_meta_task", 4.0, -0.93),
    ]:
        value = expected_return(lakes, adapt(lakes, uniform, distance, reg_coef)).mean().item()
        assert value == pytest.approx(expected, abs=0.1)


def test_meta_training_reaches_the_specified_return(lakes):
    """At least 1.4 of 1.6384 after one Alg(1) adaptation, in less than the 10 seconds that are allowed."""
    start = time.process_time()
    learner = BOMRLExact(lakes, "kl_meta_task", 0.1, learning_rate=0.1).learn(100)
    assert time.process_time() - start < 10
    returns = learner.evaluate(lakes, n_adaptation_steps=4).mean(-1)
    assert returns[1] >= 1.4
    assert returns.shape == (5,)
    assert (returns.diff() >= -1e-12).all()  # B1(i): adapting never makes a policy worse
    assert returns[-1] <= 0.8**5 / 0.2
    assert len(learner.history["post_adapt_return"]) == len(learner.history["meta_gradient_norm"]) == 100


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta", "parameter"])
def test_small_gradient_ascent_steps_climb(distance):
    mdps = FiniteMDP.random(4, 3, 0.8, seed=0, n_tasks=5)
    learner = BOMRLExact(mdps, distance, 1.0, learning_rate=0.05, optimizer="gradient_ascent").learn(30)
    returns = th.tensor(learner.history["post_adapt_return"])
    assert (returns.diff() > 0).all()
    first_step = 0.05 * learner.history["meta_gradient_norm"][0] ** 2
    assert returns[1] - returns[0] == pytest.approx(first_step, rel=0.1)


def test_distance_term_alone_is_another_gradient():
    mdps = FiniteMDP.random(4, 3, 0.8, seed=1, n_tasks=5)
    norms = [
        BOMRLExact(mdps, "kl_task_meta", 0.3, sampling_term=term).learn(1).history["meta_gradient_norm"][0]
        for term in (True, False)
    ]
    assert abs(norms[0] - norms[1]) > 1e-3


def test_maml_step_is_the_gradient_of_the_return():
    mdp = FiniteMDP.random(5, 3, 0.9, seed=2, n_tasks=3)
    logits = random_logits(5, 3, seed=3).expand(3, -1, -1).clone().requires_grad_(True)
    (gradient,) = th.autograd.grad(expected_return(mdp, logits.softmax(-1)).sum(), logits)
    step = policy_gradient_step(mdp, logits, 0.7) - logits
    th.testing.assert_close(step, 0.7 * gradient, rtol=0, atol=1e-12)


def test_maml_step_is_alg3_with_a_large_lambda():
    """One SGD step of Alg(3) with 1 / lambda = 2 alpha; for a large lambda that is its whole solution."""
    mdp = FiniteMDP.random(5, 3, 0.9, seed=4, n_tasks=3)
    logits, reg_coef = random_logits(5, 3, seed=5), 1e5
    alg3 = adaptation_path(mdp, logits, "parameter", reg_coef)[-1] - logits
    maml = policy_gradient_step(mdp, logits, (1 - mdp.gamma) / (2 * reg_coef)) - logits
    assert ((alg3 - maml).norm() / maml.norm()).item() < 1e-4


def test_maml_gradient_by_finite_differences():
    mdps = FiniteMDP.random(3, 2, 0.8, seed=6, n_tasks=2)
    learner = MAMLExact(mdps, inner_lr=2.0, n_adaptation_steps=2, meta_logits=random_logits(3, 2, seed=7))

    def meta_objective(logits: th.Tensor) -> th.Tensor:
        learner.meta_logits = logits
        return learner.meta_objective()

    assert th.autograd.gradcheck(meta_objective, (learner.meta_logits,))


def test_maml_meta_training_helps(lakes):
    learner = MAMLExact(lakes, inner_lr=30.0)
    before = learner.evaluate(lakes)[1].mean()
    assert learner.learn(60).evaluate(lakes)[1].mean() > before + 0.5


def test_mean_optimal_policy_beats_random_ones():
    mdps = FiniteMDP.random(3, 2, 0.8, seed=8, n_tasks=4)
    best = expected_return(mdps, mean_optimal_policy(mdps, n_iterations=300, n_starts=2)).mean()
    others = th.stack([random_logits(3, 2, seed, scale=5.0) for seed in range(200)]).softmax(-1)
    assert (expected_return(mdps, others[:, None]).mean(-1) <= best + 2e-3).all()
    shared = SharedPolicyExact(mdps).evaluate(mdps, 3)
    assert th.equal(shared[0], shared[3])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of"),
        ({"n_adaptation_steps": 0}, "n_adaptation_steps must be an integer of at least 1, got 0"),
        ({"meta_logits": th.zeros(3, 3)}, "meta_logits must have shape"),
        ({"reg_coef": -1.0}, "reg_coef must be a finite number above 0, got -1.0"),
        ({"distance": "l1"}, "distance must be one of"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    arguments = {"distance": "kl_meta_task", "reg_coef": 1.0} | kwargs
    with pytest.raises(ValueError, match=message):
        BOMRLExact(FiniteMDP.random(2, 2, 0.5, 0, n_tasks=2), **arguments)


def test_a_single_mdp_or_step_size_zero_is_named():
    with pytest.raises(ValueError, match="batch of tasks"):
        BOMRLExact(FiniteMDP.random(2, 2, 0.5, 0), "parameter", 1.0)
    with pytest.raises(ValueError, match=r"inner_lr must be a finite number above 0, got 0\.0"):
        MAMLExact(FiniteMDP.random(2, 2, 0.5, 0, n_tasks=1), inner_lr=0.0)
