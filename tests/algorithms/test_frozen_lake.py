"""The sampled algorithm on Frozen Lake against the exact one: same maps, same meta-policy, same lambda."""

import time
from typing import NamedTuple

import numpy as np
import pytest
import torch as th

from sb3_bomrl import BOMRL
from sb3_bomrl.core.params import stack
from sb3_bomrl.tabular import (
    LAKE_GAMMA,
    adapt,
    expected_return,
    lake_mdp,
    random_logits,
    sample_layouts,
    state_visitation,
)
from sb3_bomrl.vec_env import make_meta_vec_env

ENV_ID = "bomrl/FrozenLakeLowVariance-v0"
TABLE = "action_net.weight"
REG_COEF = 1.0
LAYOUTS = sample_layouts("low_variance", 3, 5)
MDPS = lake_mdp(LAYOUTS)
LOGITS = random_logits(16, 4, 0, scale=0.5)
SIZES = {100: 5, 400: 3, 1600: 1}
"""Episodes per task and phase, and independent repetitions of it."""
MODES = {"implicit": False, "implicit_sampling": True}


def make_model(env, distance="kl_task_meta", hypergradient="implicit_sampling", n_tasks=3):
    model = BOMRL(
        "TabularPolicy",
        env,
        inner_solver="closed_form",
        surrogate="linear",
        distance=distance,
        reg_coef=REG_COEF,
        hypergradient=hypergradient,
        hypergradient_damping=1e-5,  # a state that only query episodes visit has no inner Hessian
        hypergradient_cg_max_steps=100,
        discount_states=True,
        normalize_advantage=False,
        gamma=LAKE_GAMMA,
        gae_lambda=1.0,
        n_steps=49,
        meta_batch_size=n_tasks,
        outer_step="adam",
        learning_rate=0.03,
        seed=0,
        device="cpu",
    )
    model.policy.double()
    return model


def exact_meta_gradient(distance, sampling_term):
    """(1 − γ) ∇ mean J: the core's visitation is normalised, and so are its policy gradients."""
    phi = LOGITS.clone().requires_grad_(True)
    policy = adapt(MDPS, phi, distance, REG_COEF, sampling_term=sampling_term)
    return (1 - LAKE_GAMMA) * th.autograd.grad(expected_return(MDPS, policy).mean(), phi)[0]


class Sampled(NamedTuple):
    policies: th.Tensor  # adapted, (n_repetitions, n_maps, S, A)
    gradients: dict[str, list[th.Tensor]]  # by mode, one (S, A) per repetition


def run_phases(distance, n_episodes, n_repetitions):
    """Support, adaptation, query and meta-gradient; repetitions are played as further tasks."""
    tasks = list(LAYOUTS) * n_repetitions
    env = make_meta_vec_env(ENV_ID, len(tasks) * n_episodes)
    models = {mode: make_model(env, distance, mode) for mode in MODES}
    model = models["implicit"]
    collector = model.make_collector(env, np.random.default_rng(0))
    phi = stack({TABLE: LOGITS.T}, len(tasks))
    support = collector.collect_episodes(tasks, phi, n_episodes)
    adapted = model.adapt_params(phi, model._experience(support))
    query = collector.collect_episodes(tasks, adapted.params, n_episodes)

    gradients = {mode: [] for mode in MODES}
    for first in range(0, len(tasks), len(LAYOUTS)):
        chosen = slice(first, first + len(LAYOUTS))

        def part(phase, chosen=chosen):
            fields = {name: getattr(phase, name)[chosen] for name in phase._fields if name != "final_observations"}
            return model._experience(phase._replace(**fields))

        own = adapted._replace(params={TABLE: adapted.params[TABLE][chosen]})
        for mode, other in models.items():
            got = other.meta_gradient({TABLE: phi[TABLE][chosen]}, [part(support)], [own], part(query))
            gradients[mode].append(got.gradient[TABLE].T)
    policies = adapted.params[TABLE].mT.softmax(-1).reshape(n_repetitions, len(LAYOUTS), 16, 4)
    return Sampled(policies, gradients)


@pytest.fixture(scope="module", params=["kl_meta_task", "kl_task_meta"])
def sampled(request):
    """The distance, and what every sample size gives."""
    return request.param, {n: run_phases(request.param, n, repetitions) for n, repetitions in SIZES.items()}


def falls_as_one_over_root_n(errors):
    """From 100 to 1,600 episodes an error falls by a factor of four, up to what chance does to a few repetitions."""
    first, middle, last = errors
    return first > middle > last and 2.5 < first / last < 6.5


@pytest.mark.parametrize("mode", MODES)
def test_meta_gradient_converges_to_the_exact_one(sampled, mode):
    distance, results = sampled
    exact, other = (exact_meta_gradient(distance, flag) for flag in (MODES[mode], not MODES[mode]))
    errors = []
    for result in results.values():
        squares = [((gradient - exact).norm() / exact.norm()).square() for gradient in result.gradients[mode]]
        errors.append(float(th.stack(squares).mean().sqrt()))
    assert falls_as_one_over_root_n(errors), errors
    best = results[1600].gradients[mode][0]
    assert th.cosine_similarity(best.flatten(), exact.flatten(), dim=0) > 0.98
    assert (best - exact).norm() < 0.2 * exact.norm()  # no constant factor is missing
    assert (best - other).norm() > 2 * (best - exact).norm()  # nor is it the other gradient


def test_adapted_policies_converge_to_the_exact_adaptation(sampled):
    distance, results = sampled
    visitation = state_visitation(MDPS, LOGITS.softmax(-1))

    def error(policies, reg_coef):
        """Total variation, averaged over the states that the meta-policy visits."""
        exact = adapt(MDPS, LOGITS, distance, reg_coef)
        return float(((policies - exact).abs().sum(-1) / 2 * visitation).sum(-1).mean())

    errors = [error(result.policies, REG_COEF) for result in results.values()]
    assert falls_as_one_over_root_n(errors), errors
    best = results[1600].policies
    # reg_coef has the same meaning on both sides
    assert errors[-1] < 0.6 * min(error(best, 1.25 * REG_COEF), error(best, REG_COEF / 1.25))


def test_a_meta_iteration_of_five_times_500_episodes_takes_less_than_a_second():
    model = make_model(make_meta_vec_env(ENV_ID, 5 * 500), n_tasks=5)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        model.learn(1, log_interval=None)
        seconds.append(time.process_time() - start)
    assert model.n_meta_iterations == 3
    assert model.num_timesteps == 2 * 5 * 500 * 49
    assert min(seconds) < 1.0
