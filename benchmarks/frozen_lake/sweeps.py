"""Gap and bounds as lambda and task variance vary, and the meta-gradient's norm, beside the paper's figures."""

from typing import Any

import numpy as np
import torch as th

from benchmarks.frozen_lake.experiments import (
    ALGORITHMS,
    FAMILIES,
    N_ITERATIONS,
    gaps_and_bounds,
    lakes,
    make_learner,
)
from sb3_bomrl.tabular import BOMRLExact, lake_mdp, sample_layouts
from sb3_bomrl.theory import task_variance, variance_minimizing_policy

SWEEP_SEED = 0
LAMBDAS = tuple(round(float(value), 6) for value in np.logspace(-4, 3, 15))
N_DISTINCT_MAPS = (1, 2, 3, 5, 10, 20)
VARIANCE_SEEDS = (0, 1, 2)
VARIANCE_LAMBDAS = {"alg1": 3.0, "alg2": 3.0, "alg3": 0.1}
"""Large enough for B4 to be a bound in most places, and for the meta-policy to matter."""
CONVERGENCE_ITERATIONS = 3000
CONVERGENCE = {"alg1": (0.1, 0.5), "alg2": (0.2, 0.5), "alg3": (0.01, 0.5)}
"""reg_coef and the constant step size of plain gradient ascent."""


def sweep_lambda() -> list[dict[str, Any]]:
    """Train at every lambda, then measure on the training maps, to which the bounds are as good as it gets."""
    maps = lakes("high_variance", SWEEP_SEED)["seen"]
    rows = []
    for method in ALGORITHMS:
        for reg_coef in LAMBDAS:
            learner = make_learner(method, reg_coef, maps, SWEEP_SEED).learn(N_ITERATIONS)
            measured = gaps_and_bounds(maps, learner.meta_logits.detach(), method, reg_coef)
            rows.append({"method": method, "reg_coef": reg_coef, **measured})
    return rows


def sweep_variance() -> list[dict[str, Any]]:
    """From one task to twenty different ones; the task variance is the smallest around any policy."""
    rows = []
    for family in FAMILIES:
        for n_distinct in N_DISTINCT_MAPS:
            for seed in VARIANCE_SEEDS:
                maps = lake_mdp(sample_layouts(family, n_distinct, seed))
                smallest = task_variance(maps, variance_minimizing_policy(maps)).item()
                for method, reg_coef in VARIANCE_LAMBDAS.items():
                    learner = make_learner(method, reg_coef, maps, seed).learn(N_ITERATIONS)
                    measured = gaps_and_bounds(maps, learner.meta_logits.detach(), method, reg_coef)
                    key = {"family": family, "n_maps": n_distinct, "seed": seed, "smallest_task_variance": smallest}
                    rows.append({**key, "method": method, "reg_coef": reg_coef, **measured})
    return rows


def convergence() -> list[dict[str, Any]]:
    """Norm of the exact meta-gradient under plain gradient ascent of constant step, thinned evenly on a log scale."""
    maps = lakes("high_variance", SWEEP_SEED)["seen"]
    kept = np.unique(np.logspace(0, np.log10(CONVERGENCE_ITERATIONS), 120).astype(int)) - 1
    rows = []
    for method, (reg_coef, step) in CONVERGENCE.items():
        learner = BOMRLExact(maps, ALGORITHMS[method], reg_coef, learning_rate=step, optimizer="gradient_ascent").learn(
            CONVERGENCE_ITERATIONS
        )
        norms = th.tensor(learner.history["meta_gradient_norm"], dtype=th.float64)
        rows.append(
            {
                "method": method,
                "reg_coef": reg_coef,
                "step": step,
                "iterations": (kept + 1).tolist(),
                "gradient_norm": norms[kept].tolist(),
                "smallest_so_far": norms.cummin(0).values[kept].tolist(),
                "return": [learner.history["post_adapt_return"][index] for index in kept],
            }
        )
    return rows
