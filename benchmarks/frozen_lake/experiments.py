"""The exact experiments behind Figures 1, 3 and 4: learning curves over adaptations, gaps and bounds."""

import time
from collections.abc import Callable
from typing import Any

import torch as th

from sb3_bomrl.tabular import (
    FAMILIES,
    BOMRLExact,
    ExactMetaLearner,
    FiniteMDP,
    MAMLExact,
    adaptation_path,
    expected_return,
    lake_mdp,
    mean_optimal_policy,
    optimal_policy,
    policy_gradient_step,
    random_logits,
    sample_layouts,
)
from sb3_bomrl.theory import bounds, optimality_gap, task_variance

N_MAPS = 20
N_ITERATIONS = 200
N_ADAPTATIONS = 4
LEARNING_RATE = 0.03
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
ALGORITHMS = {"alg1": "kl_meta_task", "alg2": "kl_task_meta", "alg3": "parameter"}
GRIDS = {
    "alg1": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "alg2": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "alg3": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "maml": (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
}
"""Weights of the distance (BO-MRL) and step sizes (MAML): six values each, chosen on other maps than are reported."""


def lakes(family: str, seed: int) -> dict[str, FiniteMDP]:
    """Make training maps ("seen") and as many others ("held-out")."""
    layouts = sample_layouts(family, 2 * N_MAPS, seed)
    return {"seen": lake_mdp(layouts[:N_MAPS]), "held-out": lake_mdp(layouts[N_MAPS:])}


def make_learner(method: str, setting: float, mdps: FiniteMDP, seed: int) -> ExactMetaLearner:
    """Make a meta-learner that starts from small random logits, so that seeds differ in more than their maps."""
    start = random_logits(mdps.n_states, mdps.n_actions, seed, scale=0.1)
    if method == "maml":
        return MAMLExact(mdps, setting, learning_rate=LEARNING_RATE, meta_logits=start)
    return BOMRLExact(mdps, ALGORITHMS[method], setting, learning_rate=LEARNING_RATE, meta_logits=start)


def tune() -> list[dict[str, Any]]:
    """Return after one adaptation on held-out maps of the tuning seed, for every setting."""
    rows = []
    for family in FAMILIES:
        maps = lakes(family, TUNING_SEED)
        for method, grid in GRIDS.items():
            for setting in grid:
                learner = make_learner(method, setting, maps["seen"], TUNING_SEED).learn(N_ITERATIONS)
                value = learner.evaluate(maps["held-out"])[1].mean().item()
                rows.append({"family": family, "method": method, "setting": setting, "return": value})
    return rows


def best_settings(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the best setting per family and method."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["family"], row["method"])
        if key not in best or row["return"] > best[key]["return"]:
            best[key] = row
    return {key: row["setting"] for key, row in best.items()}


def run(settings: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    """Train and evaluate every method on every seed and family."""
    rows = []
    for seed in SEEDS:
        for family in FAMILIES:
            maps = lakes(family, seed)
            rows += _references(maps, {"seed": seed, "family": family})
            for method in GRIDS:
                rows += _train_and_evaluate(method, settings[family, method], maps, seed, family)
    return rows


def _references(maps: dict[str, FiniteMDP], key: dict[str, Any]) -> list[dict[str, Any]]:
    """The optimum of every task, and the best shared policy that training finds."""
    shared = mean_optimal_policy(maps["seen"])
    rows = []
    for name, mdps in maps.items():
        optimum = expected_return(mdps, optimal_policy(mdps)[0]).mean().item()
        mean_optimal = expected_return(mdps, shared).mean().item()
        rows.append({**key, "maps": name, "method": "optimum", "returns": [optimum] * (N_ADAPTATIONS + 1)})
        rows.append({**key, "maps": name, "method": "shared", "returns": [mean_optimal] * (N_ADAPTATIONS + 1)})
    return rows


def _train_and_evaluate(
    method: str, setting: float, maps: dict[str, FiniteMDP], seed: int, family: str
) -> list[dict[str, Any]]:
    learner = make_learner(method, setting, maps["seen"], seed)
    start = time.process_time()
    learner.learn(N_ITERATIONS)
    seconds = time.process_time() - start
    key = {"seed": seed, "family": family, "setting": setting}
    rows = []
    for name, mdps in maps.items():
        row = {**key, "maps": name, "method": method, "train_cpu_seconds": round(seconds, 2)}
        row["returns"] = learner.evaluate(mdps, N_ADAPTATIONS).mean(-1).tolist()
        if method in ALGORITHMS:
            row |= gaps_and_bounds(mdps, learner.meta_logits.detach(), method, setting)
            row["gap_policy_gradient_step"] = _gap_after_gradient_step(maps["seen"], mdps, learner.meta_logits.detach())
            logits = random_logits(mdps.n_states, mdps.n_actions, seed)
            path = adaptation_path(mdps, logits, ALGORITHMS[method], setting, N_ADAPTATIONS)
            returns = [expected_return(mdps, step.softmax(-1)).mean().item() for step in path]
            rows.append({**key, "maps": name, "method": f"random_{method}", "returns": returns})
        rows.append(row)
    return rows


def gaps_and_bounds(mdps: FiniteMDP, meta_logits: th.Tensor, method: str, reg_coef: float) -> dict[str, Any]:
    """Measure gaps before and after one adaptation, bounds, and task variance, means over tasks."""
    distance, policy = ALGORITHMS[method], meta_logits.softmax(-1)
    path = adaptation_path(mdps, meta_logits, distance, reg_coef)
    before, after = (optimality_gap(mdps, logits.softmax(-1)).mean().item() for logits in path)
    result = bounds(mdps, policy, distance, reg_coef)
    value, holds = result["paper"]
    row: dict[str, Any] = {"gap_no_adaptation": before, "gap_one_adaptation": after}
    for name in ("B1", "B2", "B3"):
        mean = result[name].mean().item()
        row[name] = mean if mean < float("inf") else None
    row["B4"], row["B4_holds_share"] = value.mean().item(), holds.double().mean().item()
    row["task_variance"] = task_variance(mdps, policy).item()
    return row


def _gap_after_gradient_step(seen: FiniteMDP, mdps: FiniteMDP, meta_logits: th.Tensor) -> float:
    """One policy-gradient step from the meta-policy, of the step size that is best on the training maps."""

    def after(tasks: FiniteMDP) -> Callable[[float], th.Tensor]:
        return lambda size: optimality_gap(tasks, policy_gradient_step(tasks, meta_logits, size).softmax(-1)).mean()

    best = min(GRIDS["maml"], key=lambda size: after(seen)(size).item())
    return after(mdps)(best).item()
