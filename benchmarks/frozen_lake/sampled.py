"""
Sampled Frozen Lake: maps, starts and lambdas of the exact experiments, but 500 episodes in place of expectations.

The policies that come out are tables, and their returns are computed exactly: what is measured is the effect of
sampling on learning and adapting, not on scoring.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th

from benchmarks.frozen_lake.experiments import (
    ALGORITHMS,
    FAMILIES,
    LEARNING_RATE,
    N_ADAPTATIONS,
    N_MAPS,
    best_settings,
    lakes,
)
from benchmarks.frozen_lake.results import load
from sb3_bomrl import BOMRL
from sb3_bomrl.core.params import stack
from sb3_bomrl.envs.frozen_lake import LAKE_HORIZON
from sb3_bomrl.tabular import LAKE_GAMMA, FiniteMDP, expected_return, random_logits, sample_layouts
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


def arguments(method: str, reg_coef: float) -> dict[str, Any]:
    """
    What tells the methods apart, as arguments of ``BOMRL``.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param reg_coef: weight of the distance
    """
    common = {
        "distance": ALGORITHMS[method],
        "reg_coef": reg_coef,
        "hypergradient": "implicit_sampling",
        "inner_max_kl": 1e9,
    }
    if method == "alg3":
        return {**common, "inner_solver": "adam", "inner_lr": 0.1, "n_inner_steps": 200}
    return {**common, "inner_solver": "closed_form"}


def make_model(method: str, reg_coef: float, family: str, seed: int) -> BOMRL:
    """
    A model on the maps of a seed, started where the exact experiments start.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param reg_coef: weight of the distance
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
        **arguments(method, reg_coef),
    )
    model.actor.load_params(table_params(random_logits(16, 4, seed, scale=0.1)))
    return model


def table_params(logits: th.Tensor) -> Params:
    """
    Logits as the policy's parameters.

    :param logits: (..., S, A)
    """
    return {TABLE: logits.mT.float()}


def evaluate(model: BOMRL, params: Params, mdps: FiniteMDP, layouts: list[Any], seed: int) -> list[float]:
    """
    Exact return, mean over maps, after 0 to 4 adaptations to 500 sampled episodes each.

    :param model: brings the adaptation
    :param params: where to start, each of shape (\\*shape)
    :param mdps: the maps
    :param layouts: the same maps as tasks
    :param seed: of the episodes
    """
    assert model.env is not None
    collector = model.make_collector(model.env, np.random.default_rng(seed))
    current, returns = stack(params, len(layouts)), []
    for number in range(N_ADAPTATIONS + 1):
        policy = current[TABLE].double().mT.softmax(-1)
        returns.append(expected_return(mdps, policy).mean().item())
        if number < N_ADAPTATIONS:
            current = model.adapt_to(current, collector.collect_episodes(layouts, current, N_EPISODES))
    return returns


def train(method: str, reg_coef: float, family: str, seed: int) -> tuple[BOMRL, dict[str, Any]]:
    """
    Meta-train.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param reg_coef: weight of the distance
    :param family: name of the family
    :param seed: of maps, start and episodes
    :return: the model, and what the run cost
    """
    model = make_model(method, reg_coef, family, seed)
    start, cpu_start = time.perf_counter(), time.process_time()
    model.learn(N_ITERATIONS * 2 * META_BATCH_SIZE * N_EPISODES * LAKE_HORIZON, log_interval=None)
    cost = {
        "iterations": model.n_meta_iterations,
        "env_steps": model.num_timesteps,
        "train_wall_seconds": round(time.perf_counter() - start, 1),
        "train_cpu_seconds": round(time.process_time() - cpu_start, 1),
    }
    return model, cost


def train_and_evaluate(method: str, reg_coef: float, family: str, seed: int) -> list[dict[str, Any]]:
    """
    One training run: rows of results on seen and held-out maps, and those of a random start without training.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param reg_coef: weight of the distance
    :param family: name of the family
    :param seed: of maps, start and episodes
    """
    model, cost = train(method, reg_coef, family, seed)
    layouts = sample_layouts(family, 2 * N_MAPS, seed)
    tasks = {"seen": layouts[:N_MAPS], "held-out": layouts[N_MAPS:]}
    key = {"seed": seed, "family": family, "setting": reg_coef}
    rows = []
    for name, mdps in lakes(family, seed).items():
        returns = evaluate(model, model.actor.params(), mdps, tasks[name], seed)
        rows.append({**key, "maps": name, "method": method, "returns": returns, **cost})
        untrained = table_params(random_logits(mdps.n_states, mdps.n_actions, seed))
        returns = evaluate(model, untrained, mdps, tasks[name], seed)
        rows.append({**key, "maps": name, "method": f"random_{method}", "returns": returns})
    print(method, family, seed, cost, flush=True)
    return rows


def run() -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """
    Alg(1) to Alg(3), each with the lambda that was best in the exact experiments.

    :return: after every seed, the seeds that are done and all their rows
    """
    chosen, rows = best_settings(load("tuning")["rows"]), []
    for number, seed in enumerate(SEEDS):
        for family in FAMILIES:
            for method in ALGORITHMS:
                rows += train_and_evaluate(method, chosen[family, method], family, seed)
        yield list(SEEDS[: number + 1]), rows
