"""
The sampled meta-gradient against the exact one, as the number of episodes grows.

On low-variance maps a random meta-policy reaches every state. On high-variance maps the holes keep it from the goal, so
there are two meta-policies: a random one, and one that reaches the goal in a good share of the episodes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th

from benchmarks.frozen_lake.experiments import ALGORITHMS
from benchmarks.frozen_lake.sampled import ENV_IDS, TABLE
from sb3_bomrl import BOMRL
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import stack
from sb3_bomrl.envs.frozen_lake import LAKE_HORIZON
from sb3_bomrl.meta.batches import make_batch, merge_samples
from sb3_bomrl.meta.closed_form import closed_form_adaptation
from sb3_bomrl.meta.gradients import bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.tabular import (
    LAKE_GAMMA,
    FiniteMDP,
    Layout,
    expected_return,
    lake_mdp,
    random_logits,
    sample_layouts,
)
from sb3_bomrl.tabular import adapt as adapt_exactly
from sb3_bomrl.tabular.solvers import transition_under
from sb3_bomrl.theory import variance_minimizing_policy
from sb3_bomrl.types import Batch, Params, Rollout
from sb3_bomrl.vec_env import make_meta_vec_env

N_MAPS = 3
REPETITIONS = {100: 16, 400: 8, 1600: 4}
"""Independent repetitions by the number of episodes per task and phase."""
MODES = {"implicit": False, "implicit_sampling": True}
DAMPING = 1e-5
SOLVER = InnerSolver("sgd", 0.15, 400, float("inf"), 1e-8)
"""Of Alg(3), which has no closed form: to a gradient norm of 1e-8."""


class Case(NamedTuple):
    """Maps, meta-policy and lower level."""

    family: str
    seed: int
    meta_policy: str
    method: str
    reg_coef: float


CASES = (
    Case("low_variance", 5, "random", "alg1", 1.0),
    Case("low_variance", 5, "random", "alg2", 1.0),
    Case("low_variance", 5, "random", "alg3", 0.05),
    Case("high_variance", 7, "reaches goals", "alg1", 1.0),
    Case("high_variance", 7, "reaches goals", "alg2", 1.0),
    Case("high_variance", 5, "random", "alg1", 1.0),
    Case("high_variance", 5, "random", "alg2", 1.0),
)


def measure() -> Iterator[dict[str, Any]]:
    """
    Root mean square of the relative error of the meta-gradient, over repetitions.

    :return: a row per case, number of episodes and hypergradient; ``error_of_mean`` is that of the mean of
        the repetitions, ``goal_share`` the smallest share of episodes, over maps, that reach the goal
    """
    for case in CASES:
        layouts = sample_layouts(case.family, N_MAPS, case.seed)
        mdps = lake_mdp(layouts)
        logits = _meta_logits(case, mdps)
        exact = {mode: _exact_gradient(case, mdps, logits, flag) for mode, flag in MODES.items()}
        share = _goal_share(mdps, logits.softmax(-1))
        for n_episodes, n_repetitions in REPETITIONS.items():
            sampled = _sampled_gradients(case, layouts, logits, n_episodes, n_repetitions)
            for mode, gradients in sampled.items():
                norm = exact[mode].norm()
                errors = (gradients - exact[mode]).flatten(1).norm(dim=1) / norm
                row = {**case._asdict(), "goal_share": round(share, 4), "hypergradient": mode}
                row |= {"n_episodes": n_episodes, "n_repetitions": n_repetitions}
                row["error"] = round(errors.square().mean().sqrt().item(), 4)
                yield row | {"error_of_mean": round(((gradients.mean(0) - exact[mode]).norm() / norm).item(), 4)}


def _meta_logits(case: Case, mdps: FiniteMDP) -> th.Tensor:
    if case.meta_policy == "random":
        return random_logits(mdps.n_states, mdps.n_actions, 0, scale=0.5)
    return (0.5 * variance_minimizing_policy(mdps) + 0.5 / mdps.n_actions).log()


def _exact_gradient(case: Case, mdps: FiniteMDP, logits: th.Tensor, sampling_term: bool) -> th.Tensor:
    """(1 - gamma) times the gradient of the mean return: samples average over the normalised visitation."""
    phi = logits.clone().requires_grad_(True)
    policy = adapt_exactly(mdps, phi, ALGORITHMS[case.method], case.reg_coef, sampling_term=sampling_term)
    return (1 - mdps.gamma) * th.autograd.grad(expected_return(mdps, policy).mean(), phi)[0]


def _goal_share(mdps: FiniteMDP, policy: th.Tensor) -> float:
    """The goal absorbs: the probability of being there at the end is that of ever reaching it."""
    steps = th.linalg.matrix_power(transition_under(mdps, policy), LAKE_HORIZON)
    return (mdps.initial.unsqueeze(-2) @ steps)[..., 0, -1].min().item()


def _sampled_gradients(
    case: Case, layouts: list[Layout], logits: th.Tensor, n_episodes: int, n_repetitions: int
) -> dict[str, th.Tensor]:
    """By hypergradient, (n_repetitions, S, A); repetitions are played as further tasks."""
    tasks = layouts * n_repetitions
    env = make_meta_vec_env(ENV_IDS[case.family], len(tasks) * n_episodes)
    options = {"gamma": LAKE_GAMMA, "gae_lambda": 1.0, "n_steps": LAKE_HORIZON, "discount_states": True}
    model = BOMRL("TabularPolicy", env, meta_batch_size=len(tasks), seed=0, device="cpu", **options)
    model.policy.double()
    collector, actor = model.make_collector(env, np.random.default_rng(0)), model.actor
    phi = stack({TABLE: logits.mT.contiguous()}, len(tasks))
    support = collector.collect_episodes(tasks, phi, n_episodes)
    lower = _lower_level(case, actor, merge_samples(_batch(support, actor), logits.shape[-1]))
    if case.method == "alg3":
        adapted = adapt(lower, phi, SOLVER).params
    else:
        adapted = closed_form_adaptation(lower, phi).params
    query = collector.collect_episodes(tasks, adapted, n_episodes)

    found: dict[str, list[th.Tensor]] = {mode: [] for mode in MODES}
    for first in range(0, len(tasks), len(layouts)):
        chosen = slice(first, first + len(layouts))
        for mode in MODES:
            gradient = _gradient(case, actor, _part(support, chosen), _part(query, chosen), phi, adapted, chosen, mode)
            found[mode].append(gradient[TABLE].mT)
    return {mode: th.stack(gradients) for mode, gradients in found.items()}


def _gradient(
    case: Case, actor: Actor, support: Rollout, query: Rollout, phi: Params, adapted: Params, chosen: slice, mode: str
) -> Params:
    full = _batch(support, actor)
    n_actions = phi[TABLE].shape[-2]
    lower = _lower_level(case, actor, merge_samples(full, n_actions))
    return bomrl_meta_gradient(
        lower,
        support,
        {TABLE: phi[TABLE][chosen]},
        {TABLE: adapted[TABLE][chosen]},
        merge_samples(_batch(query, actor), n_actions),
        SOLVER,
        mode,
        LAKE_GAMMA,
        100,
        DAMPING,
        _lower_level(case, actor, full),
    ).gradient


def _batch(rollout: Rollout, actor: Actor) -> Batch:
    return make_batch(rollout, actor, normalize_advantage=False, visitation_gamma=LAKE_GAMMA)


def _lower_level(case: Case, actor: Actor, batch: Batch) -> LowerLevel:
    return LowerLevel(actor, batch, ALGORITHMS[case.method], "linear", case.reg_coef)


def _part(rollout: Rollout, chosen: slice) -> Rollout:
    """The rollout of some tasks; what follows the cut-off episodes is in the advantages already."""
    fields = {name: getattr(rollout, name)[chosen] for name in rollout._fields if name != "final_observations"}
    return rollout._replace(**fields)
