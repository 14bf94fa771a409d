"""
Does a better solution of BO-MRL's lower level adapt better? Several solvers on the same support data, and on more.

    python -m benchmarks.inner_quality run --env HalfCheetahDir --method bomrl-alg1
    python -m benchmarks.inner_quality table

A kept meta-policy plays support episodes of test tasks once. The lower level is solved on them as in training, by other
steps, with other weights λ of the distance, and on more episodes; every solution is scored by fresh episodes of the
stochastic policy.

- F is the lower level's objective, Eq. (A2), with the λ of training, whatever λ was solved with: lower is better.
- The *gain* is its first part, the estimate of what the adapted policy does better on the support episodes, in standard
  deviations of the advantages.

``benchmarks/results/inner_quality/<env>_<method>.json`` has them, and the returns of every adaptation.
"""

import argparse
import json
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th

from benchmarks.command_line import run_and_table
from benchmarks.locomotion.methods import FAMILIES
from benchmarks.locomotion.policies import load_policy, policy_path
from benchmarks.locomotion.runs import PACKAGES
from benchmarks.locomotion.scoring import choose_tasks, make_test_env
from benchmarks.provenance import commit, machine, provenance, write_json, write_text
from sb3_bomrl import BOMRL
from sb3_bomrl.checks import step_size
from sb3_bomrl.core.inner_solvers import InnerStatus
from sb3_bomrl.core.params import stack
from sb3_bomrl.rollout.returns import returns_per_episode
from sb3_bomrl.types import Adaptation, Experience

METHODS = ("bomrl-alg1", "bomrl-alg2", "bomrl-alg3")
N_ADAPTATIONS, N_EVAL_EPISODES, SEED = 20, 20, 1


class Choice(NamedTuple):
    """
    How to solve the lower level, as multiples of what training has.

    :param step_size: of the steps' size
    :param n_steps: of their number
    :param reg_coef: of λ
    :param n_episodes: of the support episodes
    """

    step_size: float = 1.0
    n_steps: int = 1
    reg_coef: float = 1.0
    n_episodes: int = 1


CHOICES: dict[str, Choice] = {
    "as in training": Choice(),
    "steps 3 times smaller": Choice(step_size=1 / 3),
    "steps 10 times smaller": Choice(step_size=1 / 10),
    "4 times as many steps": Choice(n_steps=4),
    "4 times as many steps, 3 times smaller": Choice(step_size=1 / 3, n_steps=4),
    "λ 3 times larger": Choice(reg_coef=3.0),
    "λ 3 times smaller": Choice(reg_coef=1 / 3),
    "λ 10 times smaller": Choice(reg_coef=1 / 10),
    "4 times the episodes": Choice(n_episodes=4),
    "4 times the episodes, 4 times as many steps": Choice(n_steps=4, n_episodes=4),
}


def solve(model: BOMRL, choice: Choice, support: Experience) -> Adaptation:
    """
    :param model: meta-trained; left as it is
    :param choice: how to solve
    :param support: data of the meta-policy
    :return: the solution
    """
    other = copy(model)
    other.inner_lr = step_size("inner_lr", model.inner_lr, 0.0) * choice.step_size
    other.n_inner_steps = model.n_inner_steps * choice.n_steps
    other.reg_coef = model.reg_coef * choice.reg_coef
    return other.adapt_params(stack(model.actor.params(), support.rollout.n_tasks), support)


def gain_of(adapted: Adaptation, reg_coef: float) -> th.Tensor:
    """
    :param adapted: a solution
    :param reg_coef: λ that it was solved with
    :return: (n_tasks,), λ (D − F) = Σ_t w_t h(π_θ/π_φ) A_t, which does not depend on λ
    """
    return reg_coef * (adapted.distance - adapted.objective)


def measure(model: BOMRL, family: str, n_adaptations: int = N_ADAPTATIONS) -> list[dict[str, Any]]:
    """
    :param model: meta-trained
    :param family: name of its task family
    :param n_adaptations: about how many, see :func:`~benchmarks.locomotion.scoring.choose_tasks`
    :return: a row per :data:`CHOICES`
    """
    tasks = choose_tasks(family, n_adaptations)
    env = make_test_env(family, len(tasks), 1)
    collector = model.make_collector(env, np.random.default_rng(SEED))
    phi = stack(model.actor.params(), len(tasks))
    supports: dict[int, Experience] = {}
    for factor in {choice.n_episodes for choice in CHOICES.values()}:
        rollout = collector.collect_episodes(tasks, phi, factor * FAMILIES[family])
        supports[factor] = Experience(rollout, model.full_batch(rollout))
    rows: list[dict[str, Any]] = []
    for name, choice in CHOICES.items():
        adapted = solve(model, choice, supports[choice.n_episodes])
        gain = gain_of(adapted, model.reg_coef * choice.reg_coef)
        fresh = collector.collect_episodes(tasks, adapted.params, N_EVAL_EPISODES)
        returns = returns_per_episode(fresh, N_EVAL_EPISODES).mean(1)
        rows.append(
            {
                "choice": name,
                "objective": float((adapted.distance - gain / model.reg_coef).mean()),
                "gain": float(gain.mean()),
                "kl": float(adapted.kl.mean()),
                "gradient_norm": float(adapted.gradient_norm.mean()),
                "kl_limit": float((adapted.status == InnerStatus.KL_LIMIT).double().mean()),
                "returns": np.round(returns, 2).tolist(),
            }
        )
        print(f"{family}, {name}: return {returns.mean():.1f}", flush=True)
    env.close()
    return rows


def difference(row: dict[str, Any], reference: dict[str, Any]) -> tuple[float, float]:
    """
    :param row: of :func:`measure`
    :param reference: another, of the same tasks
    :return: mean difference of the returns, and its standard error, of pairs of adaptations
    """
    pairs = np.array(row["returns"]) - np.array(reference["returns"])
    return float(pairs.mean()), float(pairs.std(ddof=1) / len(pairs) ** 0.5)


def table(results: Path) -> str:
    """
    :param results: folder of the results
    :return: a row per family, method and choice, in Markdown
    """
    lines = [
        "| env | method | lower level | F | gain | KL | gradient norm | return | more than in training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        reference, *_ = content["rows"]
        for row in content["rows"]:
            cells = [f"{row[name]:.3g}" for name in ("objective", "gain", "kl", "gradient_norm")]
            more, error = difference(row, reference)
            cells += [f"{np.mean(row['returns']):.1f}", "–" if row is reference else f"{more:.1f} ± {error:.1f}"]
            lines.append(f"| {content['env']} | {content['method']} | {row['choice']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """
    :return: the parser
    """
    result, measures = run_and_table("inner_quality", __doc__)
    measures.add_argument("--env", choices=tuple(FAMILIES), required=True)
    measures.add_argument("--method", choices=METHODS, required=True)
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command == "table":
        print(write_text(args.output, table(args.results)))
        return
    commit()
    th.set_num_threads(1)
    content = {
        "provenance": provenance(
            f"python -m benchmarks.inner_quality run --env {args.env} --method {args.method}", machine(), PACKAGES
        ),
        "env": args.env,
        "method": args.method,
        "policy_file": policy_path(args.env, args.method).name,
        "rows": measure(load_policy(args.env, args.method), args.env),
    }
    print(write_json(args.results / f"{args.env}_{args.method}.json", content))


if __name__ == "__main__":
    main()
