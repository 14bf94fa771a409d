"""
Navigation2D: what meta-training does for one adaptation.

    python -m benchmarks.navigation train --seed 0   # one core, minutes; run again, it goes on where it was stopped
    python -m benchmarks.navigation table            # from the results in the repository, in Markdown

Writes ``benchmarks/results/navigation/seed_<seed>.json``, a row per evaluation, and the meta-policy to
``benchmarks/policies/navigation_bomrl_seed_<seed>.zip``. Scores are undiscounted returns on the 25 held-out goals, of
the deterministic and the stochastic policy, after 0, 1 and 2 adaptations to 20 episodes each.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from benchmarks.provenance import RESULTS, machine, provenance, write_json
from sb3_bomrl import BOMRL, evaluate_adaptation, make_meta_vec_env

ENV_ID = "bomrl/Navigation2D-v0"
N_ITERATIONS = 120
EVALUATE_EVERY = 30
N_TASKS, N_EPISODES = 10, 20
SETTINGS: dict[str, Any] = {
    "n_steps": 100,
    "meta_batch_size": N_TASKS,
    "gamma": 0.5,
    "gae_lambda": 0.9,
    "distance": "kl_task_meta",
    "reg_coef": 0.3,
    "inner_solver": "natural_gradient",
    "inner_lr": 0.4,
    "n_inner_steps": 8,
    "hypergradient": "implicit",
    "max_kl": 0.005,
    "cg_max_steps": 8,
    "line_search": False,
    "policy_kwargs": {"net_arch": [32, 32]},
}
POLICIES = Path(__file__).parent / "policies"
OPTIMUM = -0.8
"""Return of moving straight to the goal, mean over the held-out goals."""


def evaluate(model: BOMRL, n_repetitions: int = 2) -> dict[str, list[float]]:
    """
    Mean returns over the held-out goals after 0, 1 and 2 adaptations.

    :param model: brings the meta-policy
    :param n_repetitions: independent adaptations of every goal
    :return: by kind of policy
    """
    env = make_meta_vec_env(ENV_ID, 125)
    returns: dict[str, list[float]] = {}
    for name, deterministic in (("deterministic", True), ("stochastic", False)):
        curves = [
            evaluate_adaptation(model, env, None, 2, N_EPISODES, 4, deterministic, seed=seed).returns.mean((1, 2))
            for seed in range(n_repetitions)
        ]
        returns[name] = [round(float(value), 2) for value in np.mean(curves, axis=0)]
    env.close()
    return returns


def train(seed: int) -> None:
    """
    Meta-train, evaluated, saved and written every thirty meta-iterations.

    :param seed: of everything
    """
    result = RESULTS / "navigation" / f"seed_{seed}.json"
    saved = POLICIES / f"navigation_bomrl_seed_{seed}.zip"
    rows = json.loads(result.read_text())["rows"] if result.exists() and saved.exists() else []
    env = make_meta_vec_env(ENV_ID, N_TASKS * N_EPISODES, seed=seed)
    if rows:
        model = BOMRL.load(saved, env=env, device="cpu")
    else:
        model = BOMRL("MlpPolicy", env, seed=seed, device="cpu", **SETTINGS)
        rows = [{"iteration": 0, "env_steps": 0, "train_seconds": 0.0, **evaluate(model)}]
        print(rows[-1], flush=True)
    steps = EVALUATE_EVERY * 2 * SETTINGS["n_steps"] * N_TASKS * N_EPISODES
    while model.n_meta_iterations < N_ITERATIONS:
        start = time.perf_counter()
        model.learn(steps, log_interval=None, reset_num_timesteps=False)
        seconds = rows[-1]["train_seconds"] + round(time.perf_counter() - start, 1)
        row = {"iteration": model.n_meta_iterations, "env_steps": model.num_timesteps, "train_seconds": seconds}
        rows.append({**row, **evaluate(model)})
        print(rows[-1], flush=True)
        model.save(saved)
        head = provenance(f"python -m benchmarks.navigation train --seed {seed}", machine() + ", one thread")
        write_json(result, {"provenance": head, "settings": {**SETTINGS, "seed": seed}, "rows": rows})


def table() -> str:
    """Deterministic and stochastic returns before and after training, per seed, in Markdown."""
    lines = ["| seed | meta-iterations | policy | 0 | 1 | 2 adaptations |", "|---|---|---|---|---|---|"]
    for path in sorted((RESULTS / "navigation").glob("seed_*.json")):
        content = json.loads(path.read_text())
        for row in (content["rows"][0], content["rows"][-1]):
            for kind in ("deterministic", "stochastic"):
                values = " | ".join(f"{value:.1f}" for value in row[kind])
                lines.append(f"| {content['settings']['seed']} | {row['iteration']} | {kind} | {values} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="meta-train").add_argument("--seed", type=int, required=True)
    commands.add_parser("table", help="print what the results say")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    if arguments.command == "train":
        train(arguments.seed)
    else:
        print(table())


if __name__ == "__main__":
    main()
