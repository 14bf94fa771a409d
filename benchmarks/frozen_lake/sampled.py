"""
Sampled Frozen Lake: maps, starts, lambdas and MAML's step size of the exact experiments, but 500 episodes in place of
expectations.

The policies that come out are tables, and their returns are computed exactly: what is measured is the effect of
sampling on learning and adapting, not on scoring. Gaps and bounds are exact as well.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th

from benchmarks.frozen_lake.experiments import (
    ALGORITHMS,
    FAMILIES,
    GRIDS,
    LEARNING_RATE,
    N_ADAPTATIONS,
    N_MAPS,
    best_settings,
    gaps_and_bounds,
    lakes,
)
from benchmarks.frozen_lake.results import load
from sb3_bomrl import BOMRL
from sb3_bomrl.core.params import stack
from sb3_bomrl.envs.frozen_lake import LAKE_HORIZON
from sb3_bomrl.tabular import LAKE_GAMMA, FiniteMDP, Layout, expected_return, random_logits, sample_layouts
from sb3_bomrl.theory import adaptation_certificate, optimality_gap
from sb3_bomrl.types import Params
from sb3_bomrl.vec_env import make_meta_vec_env

SEEDS = (0, 1, 2)
N_ITERATIONS = 150
META_BATCH_SIZE = 5
N_EPISODES = 500
"""Episodes per task and phase, in training and at test time."""
ENV_IDS = {"high_variance": "bomrl/FrozenLakeHighVariance-v0", "low_variance": "bomrl/FrozenLakeLowVariance-v0"}
DAMPING = 1e-4
"""The inner Hessian is zero in a state that only query episodes visit; undamped, the hypergradient may then explode."""
TABLE = "action_net.weight"


def arguments(method: str, setting: float) -> dict[str, Any]:
    """
    What tells the methods apart, as arguments of ``BOMRL``.

    MAML is Alg(3) with one step of gradient descent, differentiated through. The gradient is taken under the normalised
    visitation and so is (1 - gamma) times that of the return: with the divisor a step size means what it means exactly.

    :param method: ``"alg1"``, ``"alg2"``, ``"alg3"`` or ``"maml"``
    :param setting: weight of the distance, or MAML's step size
    """
    if method == "maml":
        step = {"inner_solver": "sgd", "n_inner_steps": 1, "inner_lr": setting / (1 - LAKE_GAMMA)}
        return {"distance": "parameter", "reg_coef": 1.0, "hypergradient": "unrolled", **step}
    common = {"distance": ALGORITHMS[method], "reg_coef": setting, "hypergradient": "implicit_sampling"}
    if method == "alg3":
        return {**common, "inner_solver": "adam", "inner_lr": 0.1, "n_inner_steps": 200}
    return {**common, "inner_solver": "closed_form"}


def make_model(method: str, setting: float, family: str, seed: int) -> BOMRL:
    """
    A model on the maps of a seed, started where the exact experiments start.

    :param method: ``"alg1"``, ``"alg2"``, ``"alg3"`` or ``"maml"``
    :param setting: weight of the distance, or MAML's step size
    :param family: name of the family
    :param seed: of maps, start and episodes
    """
    env = make_meta_vec_env(
        ENV_IDS[family], META_BATCH_SIZE * N_EPISODES, env_kwargs={"map_seed": seed, "n_train_tasks": N_MAPS}
    )
    model = BOMRL(
        "TabularPolicy",
        env,
        surrogate="linear",
        inner_max_kl=float("inf"),
        hypergradient_damping=DAMPING,
        hypergradient_cg_max_steps=100,
        discount_states=True,
        normalize_advantage=False,
        gamma=LAKE_GAMMA,
        gae_lambda=1.0,
        n_steps=LAKE_HORIZON,
        meta_batch_size=META_BATCH_SIZE,
        outer_step="adam",
        learning_rate=LEARNING_RATE,
        max_grad_norm=1e6,
        seed=seed,
        device="cpu",
        **arguments(method, setting),
    )
    model.actor.load_params(table_params(random_logits(16, 4, seed, scale=0.1)))
    return model


def table_params(logits: th.Tensor) -> Params:
    """
    Logits as the policy's parameters.

    :param logits: (..., S, A)
    """
    return {TABLE: logits.mT.float()}


def tables(params: Params) -> th.Tensor:
    """
    The policy's parameters as logits.

    :param params: each of shape (n_tasks, \\*shape)
    :return: (n_tasks, S, A), double precision
    """
    return params[TABLE].double().mT


def sampled_path(model: BOMRL, params: Params, layouts: list[Layout], seed: int, n_adaptations: int) -> list[th.Tensor]:
    """
    Logits before the first and after every adaptation to 500 sampled episodes of each map.

    :param model: brings the adaptation
    :param params: where to start, each of shape (\\*shape)
    :param layouts: the maps
    :param seed: of the episodes
    :param n_adaptations: number of adaptations
    :return: one table more than adaptations, each of shape (n_maps, S, A)
    """
    assert model.env is not None
    collector = model.make_collector(model.env, np.random.default_rng(seed))
    current = stack(params, len(layouts))
    path = [tables(current)]
    for _ in range(n_adaptations):
        current = model.adapt_to(current, collector.collect_episodes(layouts, current, N_EPISODES))
        path.append(tables(current))
    return path


def mean_returns(mdps: FiniteMDP, path: list[th.Tensor]) -> list[float]:
    """
    Exact return of every table of a path, mean over maps.

    :param mdps: the maps
    :param path: logits
    """
    return [expected_return(mdps, logits.softmax(-1)).mean().item() for logits in path]


def train(method: str, setting: float, family: str, seed: int) -> tuple[BOMRL, dict[str, Any]]:
    """
    Meta-train.

    :param method: ``"alg1"``, ``"alg2"``, ``"alg3"`` or ``"maml"``
    :param setting: weight of the distance, or MAML's step size
    :param family: name of the family
    :param seed: of maps, start and episodes
    :return: the model, and what the run cost
    """
    model = make_model(method, setting, family, seed)
    start, cpu_start = time.perf_counter(), time.process_time()
    model.learn(N_ITERATIONS * 2 * META_BATCH_SIZE * N_EPISODES * LAKE_HORIZON, log_interval=None)
    cost = {
        "iterations": model.n_meta_iterations,
        "env_steps": model.num_timesteps,
        "train_wall_seconds": round(time.perf_counter() - start, 1),
        "train_cpu_seconds": round(time.process_time() - cpu_start, 1),
    }
    return model, cost


def train_and_evaluate(method: str, setting: float, family: str, seed: int) -> list[dict[str, Any]]:
    """
    One training run: rows of results on seen and held-out maps, and those of a random start without training.

    :param method: ``"alg1"``, ``"alg2"``, ``"alg3"`` or ``"maml"``
    :param setting: weight of the distance, or MAML's step size
    :param family: name of the family
    :param seed: of maps, start and episodes
    """
    model, cost = train(method, setting, family, seed)
    layouts = sample_layouts(family, 2 * N_MAPS, seed)
    tasks = {"seen": layouts[:N_MAPS], "held-out": layouts[N_MAPS:]}
    maps, params = lakes(family, seed), model.actor.params()
    key = {"seed": seed, "family": family, "setting": setting}
    steps = {} if method == "maml" else gradient_step_gaps(maps, tasks, params, family, seed)
    rows = []
    for name, mdps in maps.items():
        path = sampled_path(model, params, tasks[name], seed, N_ADAPTATIONS)
        row = {**key, "maps": name, "method": method, "returns": mean_returns(mdps, path), **cost}
        rows.append(row)
        if method == "maml":
            continue
        row |= {**sampled_gaps(mdps, path, method, setting), "gap_policy_gradient_step": steps[name]}
        untrained = table_params(random_logits(mdps.n_states, mdps.n_actions, seed))
        returns = mean_returns(mdps, sampled_path(model, untrained, tasks[name], seed, N_ADAPTATIONS))
        rows.append({**key, "maps": name, "method": f"random_{method}", "returns": returns})
    print(method, family, seed, cost, flush=True)
    return rows


def sampled_gaps(mdps: FiniteMDP, path: list[th.Tensor], method: str, reg_coef: float) -> dict[str, Any]:
    """
    Gaps before and after one sampled adaptation with the bounds on the latter; the same of an exact adaptation.

    B3 and B4 hold for a policy that was adapted to samples; B1 is about exact adaptation only.

    :param mdps: the maps
    :param path: logits before and after the adaptation
    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param reg_coef: weight of the distance
    """
    before, after = (optimality_gap(mdps, logits.softmax(-1)).mean().item() for logits in path[:2])
    certificate, (value, holds) = adaptation_certificate(mdps, path[0], path[1], ALGORITHMS[method], reg_coef)
    return {
        "gap_no_adaptation": before,
        "gap_one_adaptation": after,
        "B3": certificate.mean().item(),
        "B4": value.mean().item(),
        "B4_holds_share": holds.double().mean().item(),
        "exact": gaps_and_bounds(mdps, path[0][0], method, reg_coef),
    }


def gradient_step_gaps(
    maps: dict[str, FiniteMDP], tasks: dict[str, list[Layout]], params: Params, family: str, seed: int
) -> dict[str, float]:
    """
    Gap after one sampled policy-gradient step, of the step size that is best on the seen maps.

    The episodes are those of the first adaptation.

    :param maps: by name, "seen" among them
    :param tasks: the same maps as layouts
    :param params: meta-policy
    :param family: name of the family
    :param seed: of the episodes
    :return: by name of the maps, mean over maps
    """
    unit = make_model("maml", 1.0, family, seed)
    paths = {name: sampled_path(unit, params, tasks[name], seed, 1) for name in maps}

    def gap(name: str, size: float) -> float:
        before, after = paths[name]
        return optimality_gap(maps[name], (before + size * (after - before)).softmax(-1)).mean().item()

    best = min(GRIDS["maml"], key=lambda size: gap("seen", size))
    return {name: gap(name, best) for name in maps}


def run() -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """
    Alg(1) to Alg(3) and MAML, each with the setting that was best in the exact experiments.

    :return: after every seed, the seeds that are done and all their rows
    """
    chosen, rows = best_settings(load("tuning")["rows"]), []
    for number, seed in enumerate(SEEDS):
        for family in FAMILIES:
            for method in GRIDS:
                rows += train_and_evaluate(method, chosen[family, method], family, seed)
        yield list(SEEDS[: number + 1]), rows
