"""
Sampled Frozen Lake: maps, starts, lambdas and MAML's step size of the exact experiments, but 500 episodes in place of
expectations.

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
    GRIDS,
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
from sb3_bomrl.tabular import LAKE_GAMMA, FiniteMDP, Layout, expected_return, random_logits, sample_layouts
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
    Return what tells the methods apart, as arguments of ``BOMRL``.

    MAML is Alg(3) with one step of gradient descent, differentiated through. The gradient is taken under the
    normalised visitation and so is (1 - gamma) times that of the return: with the divisor a step size means what it
    means exactly.
    """
    if method == "maml":
        step = {"inner_solver": "sgd", "n_inner_steps": 1, "inner_lr": setting / (1 - LAKE_GAMMA)}
        step |= {"inner_max_kl": float("inf")}
        return {"distance": "parameter", "reg_coef": 1.0, "hypergradient": "unrolled", **step}
    common = {"distance": ALGORITHMS[method], "reg_coef": setting, "hypergradient": "implicit_sampling"}
    common |= {"hypergradient_damping": DAMPING, "hypergradient_cg_max_steps": 100}
    if method == "alg3":
        return {**common, "inner_solver": "adam", "inner_lr": 0.1, "n_inner_steps": 200, "inner_max_kl": float("inf")}
    return {**common, "inner_solver": "closed_form"}


def make_model(method: str, setting: float, family: str, seed: int) -> BOMRL:
    """Make a model on the maps of a seed, started where the exact experiments start."""
    env = make_meta_vec_env(
        ENV_IDS[family], META_BATCH_SIZE * N_EPISODES, env_kwargs={"map_seed": seed, "n_train_tasks": N_MAPS}
    )
    model = BOMRL(
        "TabularPolicy",
        env,
        surrogate="linear",
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
    """Return logits as the policy's parameters."""
    return {TABLE: logits.mT.float()}


def tables(params: Params) -> th.Tensor:
    """Return the policy's parameters as logits."""
    return params[TABLE].double().mT


def sampled_path(model: BOMRL, params: Params, layouts: list[Layout], seed: int, n_adaptations: int) -> list[th.Tensor]:
    """Return the logits before the first and after every adaptation to 500 sampled episodes of each map."""
    assert model.env is not None
    collector = model.make_collector(model.env, np.random.default_rng(seed))
    current = stack(params, len(layouts))
    path = [tables(current)]
    for n_adapted in range(n_adaptations):
        current = model.adapt_to(current, collector.collect_episodes(layouts, current, N_EPISODES), n_adapted)
        path.append(tables(current))
    return path


def mean_returns(mdps: FiniteMDP, path: list[th.Tensor]) -> list[float]:
    """Return the exact return of every table of a path, mean over maps."""
    return [expected_return(mdps, logits.softmax(-1)).mean().item() for logits in path]


def train(method: str, setting: float, family: str, seed: int) -> tuple[BOMRL, dict[str, Any]]:
    """Meta-train; return the model and what the run cost."""
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
    """Train, and return rows of results on seen and held-out maps, and those of a random start."""
    model, cost = train(method, setting, family, seed)
    layouts = sample_layouts(family, 2 * N_MAPS, seed)
    tasks = {"seen": layouts[:N_MAPS], "held-out": layouts[N_MAPS:]}
    maps, params = lakes(family, seed), model.actor.params()
    key = {"seed": seed, "family": family, "setting": setting}
    rows = []
    for name, mdps in maps.items():
        path = sampled_path(model, params, tasks[name], seed, N_ADAPTATIONS)
        rows.append({**key, "maps": name, "method": method, "returns": mean_returns(mdps, path), **cost})
        if method == "maml":
            continue
        untrained = table_params(random_logits(mdps.n_states, mdps.n_actions, seed))
        returns = mean_returns(mdps, sampled_path(model, untrained, tasks[name], seed, N_ADAPTATIONS))
        rows.append({**key, "maps": name, "method": f"random_{method}", "returns": returns})
    print(method, family, seed, cost, flush=True)
    return rows


def run() -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Run Alg(1) to Alg(3) and MAML, each with the setting that was best in the exact experiments."""
    chosen, rows = best_settings(load("tuning")), []
    for number, seed in enumerate(SEEDS):
        for family in FAMILIES:
            for method in GRIDS:
                rows += train_and_evaluate(method, chosen[family, method], family, seed)
        yield list(SEEDS[: number + 1]), rows
