"""The sampled baselines on Frozen Lake against exact ones: the meta-gradient, and the order of the methods."""

from itertools import combinations

import numpy as np
import pytest
import torch as th

from sb3_bomrl import BOMRL, MAML, make_meta_vec_env
from sb3_bomrl.core.params import stack
from sb3_bomrl.tabular import (
    LAKE_GAMMA,
    BOMRLExact,
    MAMLExact,
    expected_return,
    lake_mdp,
    policy_value,
    random_logits,
    sample_layouts,
    state_visitation,
)
from sb3_bomrl.types import MetaBatch

TABLE = "action_net.weight"
SETTINGS = {
    "discount_states": True,
    "normalize_advantage": False,
    "gamma": LAKE_GAMMA,
    "gae_lambda": 1.0,
    "n_steps": 49,
    "outer_step": "adam",
    "learning_rate": 0.1,
    "max_grad_norm": 1e6,
    "seed": 0,
    "device": "cpu",
}
INNER_LR = 8.0
"""In units of the normalised visitation; 1 / (1 − γ) times the step size on J itself."""


def exact_step(mdps, logits, curvature):
    """α ∇J from φ; differentiated with the data held (``"lvc"``, ``"log"``) or through the Bellman solve."""
    policy = logits.softmax(-1).expand(*mdps.batch_shape, -1, -1)
    sampled = policy if curvature == "whole" else policy.detach()
    values, q_values = policy_value(mdps, sampled)
    joint = state_visitation(mdps, sampled)[..., None] * (q_values - values[..., None])
    if curvature == "log":
        inner = joint * sampled * policy.log()
    elif curvature == "lvc":
        inner = joint * policy
    else:
        return logits + INNER_LR * policy * joint
    step = th.autograd.grad(inner.sum(), policy, create_graph=True)[0]  # pulled back through each task's softmax
    return logits + INNER_LR * policy * (step - (policy * step).sum(-1, keepdim=True))


def exact_meta_gradient(mdps, logits, curvature):
    phi = logits.clone().requires_grad_()
    adapted = exact_step(mdps, phi, curvature)
    return (1 - LAKE_GAMMA) * th.autograd.grad(expected_return(mdps, adapted.softmax(-1)).mean(), phi)[0]


def sampled_meta_gradients(layouts, logits, n_episodes, n_repeats):
    """By surrogate, one (S, A) per repetition; repetitions are played as further tasks."""
    tasks = list(layouts) * n_repeats
    env = make_meta_vec_env("bomrl/FrozenLakeLowVariance-v0", len(tasks) * n_episodes)
    model = MAML(
        "TabularPolicy", env, inner_lr=INNER_LR, inner_max_kl=float("inf"), meta_batch_size=len(tasks), **SETTINGS
    )
    model.policy.double()
    collector = model.make_collector(env, np.random.default_rng(0))
    phi = stack({TABLE: logits.T}, len(tasks))
    support = collector.collect_episodes(tasks, phi, n_episodes)
    adapted = model.adapt_params(phi, model.experience(support))
    query = collector.collect_episodes(tasks, adapted.params, n_episodes)
    gradients = {"linear": [], "log": []}
    for model.surrogate, found in gradients.items():
        for first in range(0, len(tasks), len(layouts)):
            own = slice(first, first + len(layouts))
            phases = [model.experience(rollout.of_tasks(own)) for rollout in (support, query)]
            solution = adapted._replace(params={TABLE: adapted.params[TABLE][own]})
            got = model.meta_gradient(MetaBatch({TABLE: phi[TABLE][own]}, (phases[0],), (solution,), phases[1]))
            found.append(got.gradient[TABLE].T)
    return gradients


def test_the_meta_gradient_converges_to_the_exact_one():
    layouts = sample_layouts("low_variance", 3, 5)
    mdps, logits = lake_mdp(layouts), random_logits(16, 4, 0, scale=0.5)
    exact = {name: exact_meta_gradient(mdps, logits, name) for name in ("lvc", "log", "whole")}
    errors = {"linear": [], "log": []}
    for n_episodes, n_repeats in ((100, 5), (400, 3), (1600, 1)):
        for surrogate, gradients in sampled_meta_gradients(layouts, logits, n_episodes, n_repeats).items():
            target = exact["lvc" if surrogate == "linear" else "log"]
            squares = [((gradient - target).norm() / target.norm()).square() for gradient in gradients]
            errors[surrogate].append(float(th.stack(squares).mean().sqrt()))
            if n_episodes == 1600:
                assert th.cosine_similarity(gradients[0].flatten(), target.flatten(), dim=0) > 0.99
                others = [value for value in exact.values() if value is not target]
                assert all((gradients[0] - other).norm() > 1.5 * (gradients[0] - target).norm() for other in others)
    for first, middle, last in errors.values():
        assert first > middle > last
        assert 2.5 < first / last < 6.5  # 4, up to what chance does to a few repetitions


N_MAPS, N_EPISODES, N_ITERATIONS = 5, 100, 25
DISTANCES = {
    "alg1": {"distance": "kl_meta_task", "reg_coef": 0.05},
    "alg2": {"distance": "kl_task_meta", "reg_coef": 0.5},
    "alg3": {"distance": "parameter", "reg_coef": 0.001},
}
STEP = 8.0
"""MAML's α, on J itself."""


def exact_returns(mdps, start):
    """After one adaptation, mean over maps, by method; trained, and as they started."""
    learners = {
        name: BOMRLExact(mdps, **distance, learning_rate=0.1, meta_logits=start) for name, distance in DISTANCES.items()
    }
    learners["maml"] = MAMLExact(mdps, STEP, learning_rate=0.1, meta_logits=start)
    untrained = {f"untrained {name}": float(one.evaluate(mdps)[1].mean()) for name, one in learners.items()}
    trained = {name: float(one.learn(N_ITERATIONS).evaluate(mdps)[1].mean()) for name, one in learners.items()}
    return {**trained, **untrained}


def sampled_returns(mdps, layouts, start):
    """The same from episodes; the adapted tables are scored exactly."""
    lower = {"surrogate": "linear", "hypergradient": "implicit_sampling"}
    lower |= {"hypergradient_damping": 1e-4, "hypergradient_cg_max_steps": 50}
    closed = {"inner_solver": "closed_form"}
    adam = {"inner_solver": "adam", "inner_lr": 0.1, "n_inner_steps": 200, "inner_max_kl": 1e9}
    methods = {
        name: (BOMRL, {**distance, **lower, **(adam if name == "alg3" else closed)})
        for name, distance in DISTANCES.items()
    }
    methods["maml"] = (MAML, {"inner_lr": STEP / (1 - LAKE_GAMMA), "inner_max_kl": float("inf")})
    found = {}
    for name, (cls, kwargs) in methods.items():
        env = make_meta_vec_env(
            "bomrl/FrozenLakeHighVariance-v0", N_MAPS * N_EPISODES, env_kwargs={"n_train_tasks": N_MAPS}
        )
        model = cls("TabularPolicy", env, meta_batch_size=N_MAPS, **kwargs, **SETTINGS)
        model.actor.load_params({TABLE: start.T.float()})
        for key in (f"untrained {name}", name):
            params = stack(model.actor.params(), N_MAPS)
            collector = model.make_collector(env, np.random.default_rng(1))
            adapted = model.adapt_to(params, collector.collect_episodes(layouts, params, 5 * N_EPISODES))
            found[key] = float(expected_return(mdps, adapted[TABLE].double().mT.softmax(-1)).mean())
            if key != name:
                model.learn(N_ITERATIONS * 2 * 49 * env.num_envs, log_interval=None)
                assert model.n_meta_iterations == N_ITERATIONS
    return found


@pytest.mark.slow
def test_sampled_methods_come_in_the_order_of_the_exact_ones():
    layouts, start = sample_layouts("high_variance", 2 * N_MAPS, 0)[:N_MAPS], random_logits(16, 4, 0, scale=0.1)
    mdps = lake_mdp(layouts)
    exact, sampled = exact_returns(mdps, start), sampled_returns(mdps, layouts, start)
    order = sorted(exact, key=exact.get)
    untrained = [f"untrained {name}" for name in ("maml", "alg3", "alg2", "alg1")]
    assert order == [*untrained, "maml", "alg1", "alg3", "alg2"]
    assert sorted(sampled, key=sampled.get)[4:] == order[4:]
    for worse, better in combinations(order, 2):
        if exact[better] > exact[worse] + 0.1:  # the untrained ones differ by less
            assert sampled[better] > sampled[worse], (worse, better)
    # measured: differences of at most 0.22
    assert sampled == pytest.approx(exact, abs=0.4)
