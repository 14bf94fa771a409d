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
    FiniteMDP,
    adapt,
    expected_return,
    lake_mdp,
    policy_value,
    random_logits,
    sample_layouts,
    state_visitation,
)
from sb3_bomrl.tabular.lakes import Layout
from sb3_bomrl.theory import variance_minimizing_policy
from sb3_bomrl.types import MetaBatch
from sb3_bomrl.vec_env import make_meta_vec_env

TABLE = "action_net.weight"
SIZES = {100: 5, 400: 3, 1600: 1}
"""Episodes per task and phase, and independent repetitions of it."""
MODES = {"implicit": False, "implicit_sampling": True}


class Problem(NamedTuple):
    """Three maps, a meta-policy and a lower level."""

    env_id: str
    layouts: list[Layout]
    mdps: FiniteMDP
    logits: th.Tensor
    distance: str
    reg_coef: float


def low_variance(distance: str, reg_coef: float) -> Problem:
    """Without holes every state is visited from any meta-policy, here a random one."""
    layouts = sample_layouts("low_variance", 3, 5)
    logits = random_logits(16, 4, 0, scale=0.5)
    return Problem("bomrl/FrozenLakeLowVariance-v0", layouts, lake_mdp(layouts), logits, distance, reg_coef)


def high_variance(distance: str, reg_coef: float) -> Problem:
    """
    Half the mean of the optima, half uniform: a share of 0.4 and more of the episodes reaches each map's goal.

    From a random meta-policy as few as 0.3 % do, and 100 episodes hold no sample of what the exact adaptation goes for:
    the error is then mostly bias, and falls as 1/n once n is large enough.
    """
    layouts = sample_layouts("high_variance", 3, 7)
    mdps = lake_mdp(layouts)
    logits = (0.5 * variance_minimizing_policy(mdps) + 0.5 / 4).log()
    return Problem("bomrl/FrozenLakeHighVariance-v0", layouts, mdps, logits, distance, reg_coef)


PROBLEMS = {
    "low, Alg(1)": low_variance("kl_meta_task", 1.0),
    "low, Alg(2)": low_variance("kl_task_meta", 1.0),
    "low, Alg(3)": low_variance("parameter", 0.05),
    "high, Alg(1)": high_variance("kl_meta_task", 1.0),
    "high, Alg(2)": high_variance("kl_task_meta", 1.0),
}


def make_model(env, problem, hypergradient="implicit_sampling", n_tasks=3, **kwargs):
    if problem.distance == "parameter":
        solver = {"inner_solver": "sgd", "inner_lr": 0.15, "n_inner_steps": 400, "inner_gradient_tolerance": 1e-8}
    else:
        solver = {"inner_solver": "closed_form"}
    if hypergradient != "unrolled":  # a state that only query episodes visit has no inner Hessian
        solver |= {"hypergradient_damping": 1e-5, "hypergradient_cg_max_steps": 100}
    model = BOMRL(
        "TabularPolicy",
        env,
        surrogate="linear",
        distance=problem.distance,
        reg_coef=problem.reg_coef,
        hypergradient=hypergradient,
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
        **(solver | kwargs),
    )
    model.policy.double()
    return model


def exact_meta_gradient(problem, sampling_term):
    """(1 − γ) ∇ mean J: the core's visitation is normalised, and so are its policy gradients."""
    phi = problem.logits.clone().requires_grad_(True)
    policy = adapt(problem.mdps, phi, problem.distance, problem.reg_coef, sampling_term=sampling_term)
    return (1 - LAKE_GAMMA) * th.autograd.grad(expected_return(problem.mdps, policy).mean(), phi)[0]


class Sampled(NamedTuple):
    policies: th.Tensor  # adapted, (n_repetitions, n_maps, S, A)
    gradients: dict[str, list[th.Tensor]]  # by mode, one (S, A) per repetition


def run_phases(problem, n_episodes, n_repetitions, modes=tuple(MODES), **kwargs):
    """Support, adaptation, query and meta-gradient; repetitions are played as further tasks."""
    tasks, n_maps = problem.layouts * n_repetitions, len(problem.layouts)
    env = make_meta_vec_env(problem.env_id, len(tasks) * n_episodes)
    models = {mode: make_model(env, problem, mode, **kwargs) for mode in modes}
    model = models[modes[0]]
    collector = model.make_collector(env, np.random.default_rng(0))
    phi = stack({TABLE: problem.logits.T}, len(tasks))
    support = collector.collect_episodes(tasks, phi, n_episodes)
    adapted = model.adapt_params(phi, model.experience(support))
    query = collector.collect_episodes(tasks, adapted.params, n_episodes)

    gradients = {mode: [] for mode in modes}
    for first in range(0, len(tasks), n_maps):
        chosen = slice(first, first + n_maps)

        own = adapted._replace(params={TABLE: adapted.params[TABLE][chosen]})
        phases = [model.experience(phase.of_tasks(chosen)) for phase in (support, query)]
        data = MetaBatch({TABLE: phi[TABLE][chosen]}, (phases[0],), (own,), phases[1])
        for mode, other in models.items():
            got = other.meta_gradient(data)
            gradients[mode].append(got.gradient[TABLE].T)
    policies = adapted.params[TABLE].mT.softmax(-1).reshape(n_repetitions, n_maps, 16, 4)
    return Sampled(policies, gradients)


@pytest.fixture(scope="module", params=PROBLEMS)
def sampled(request):
    """The problem, and what every sample size gives."""
    problem = PROBLEMS[request.param]
    return problem, {n: run_phases(problem, n, repetitions) for n, repetitions in SIZES.items()}


def falls_as_one_over_root_n(errors):
    """From 100 to 1,600 episodes an error falls by a factor of four, up to what chance does to a few repetitions."""
    first, middle, last = errors
    return first > middle > last and 2.5 < first / last < 6.5


@pytest.mark.parametrize("mode", MODES)
def test_meta_gradient_converges_to_the_exact_one(sampled, mode):
    problem, results = sampled
    exact, other = (exact_meta_gradient(problem, flag) for flag in (MODES[mode], not MODES[mode]))
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
    problem, results = sampled
    visitation = state_visitation(problem.mdps, problem.logits.softmax(-1))

    def error(policies, reg_coef):
        """Total variation, averaged over the states that the meta-policy visits."""
        exact = adapt(problem.mdps, problem.logits, problem.distance, reg_coef)
        return float(((policies - exact).abs().sum(-1) / 2 * visitation).sum(-1).mean())

    errors = [error(result.policies, problem.reg_coef) for result in results.values()]
    assert falls_as_one_over_root_n(errors), errors
    best, reg_coef = results[1600].policies, problem.reg_coef
    # reg_coef has the same meaning on both sides
    assert errors[-1] < 0.6 * min(error(best, 1.4 * reg_coef), error(best, reg_coef / 1.4))


def test_maml_converges_to_exact_policy_gradient_steps_and_their_derivative():
    """
    One SGD step of Alg(3), differentiated through, is MAML: the step, and the meta-gradient at fixed advantages.

    The step size of the return's own gradient is 5; that of the normalised gradient, inner_lr, is 5 / (1 − γ).
    """
    problem, size = low_variance("parameter", 1.0), 5.0
    step = {"inner_solver": "sgd", "n_inner_steps": 1, "inner_lr": size / (1 - LAKE_GAMMA)}
    result = run_phases(problem, 1600, 1, ("unrolled",), inner_gradient_tolerance=0.0, **step)
    phi = problem.logits.clone().requires_grad_(True)
    values, q_values = policy_value(problem.mdps, problem.logits.softmax(-1))
    visitation = state_visitation(problem.mdps, problem.logits.softmax(-1)) / (1 - LAKE_GAMMA)
    gain = (visitation * (phi.softmax(-1) * (q_values - values.unsqueeze(-1))).sum(-1)).sum(-1)
    gradients = [th.autograd.grad(part, phi, create_graph=True)[0] for part in gain]
    policies = (phi + size * th.stack(gradients)).softmax(-1)
    exact = (1 - LAKE_GAMMA) * th.autograd.grad(expected_return(problem.mdps, policies).mean(), phi)[0]

    moved = (policies - problem.logits.softmax(-1)).detach()
    assert (result.policies[0] - policies).norm() < 0.2 * moved.norm()
    (best,) = result.gradients["unrolled"]
    assert (best - exact).norm() < 0.2 * exact.norm()
    assert th.cosine_similarity(best.flatten(), exact.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name.startswith("low")])
def test_a_meta_iteration_of_five_times_500_episodes_takes_less_than_a_second(name):
    problem = PROBLEMS[name]
    model = make_model(problem.env_id, problem, n_tasks=5, n_envs_per_task=500)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        model.learn(1, log_interval=None)
        seconds.append(time.process_time() - start)
    assert model.n_meta_iterations == 3
    assert model.num_timesteps == 2 * 5 * 500 * 49
    assert min(seconds) < 1.0
