"""The trained policies that are kept: the best seed of every method and family."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.locomotion.methods import METHODS, family_of, settings_of
from benchmarks.locomotion.report import final_after_one, group_runs
from benchmarks.locomotion.runs import POLICIES
from benchmarks.locomotion.scoring import Plan, make_test_env, score_adaptation
from benchmarks.provenance import RESULTS
from sb3_bomrl.types import Task
from sb3_bomrl.zoo import REGISTRY


def load_policy(family: str, method: str, folder: Path = POLICIES) -> Any:
    """
    Load the trained model of a comparison::

        model = load_policy("Navigation2D", "bomrl-alg2")

    :param family: name of a task family
    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param folder: of the policies
    :return: the model, without an environment, on the CPU
    :raises ValueError: if none is kept
    """
    return _algorithm(method).load(policy_path(family, method, folder), device="cpu")


def kept_policies(folder: Path = POLICIES) -> dict[tuple[str, str], int]:
    """
    :param folder: of the policies
    :return: (family, label) -> seed of the policy that is kept
    """
    names = [path.stem.split("_") for path in sorted(folder.glob("*.zip"))]
    return {(family, label): int(seed) for family, label, _, seed in names}


def policy_path(family: str, method: str, folder: Path = POLICIES) -> Path:
    """
    :param family: name of a task family
    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param folder: of the policies
    :return: the file of the trained model
    :raises ValueError: if none is kept
    """
    found = sorted(folder.glob(f"{family}_{method}_seed_*.zip"))
    if not found:
        kept = ", ".join(sorted(path.stem for path in folder.glob("*.zip"))) or "none"
        raise ValueError(
            f"family and method must be those of a policy in {folder}, {kept}, got {family!r} and {method!r}"
        )
    return found[0]


def _algorithm(method: str) -> Any:
    kind = METHODS[method].kind
    if kind in ("meta", "untrained"):
        return REGISTRY[METHODS[method].algorithm]
    from benchmarks.locomotion.plain import NormalizedRL2, NormalizedTRPO  # need sb3-contrib

    return NormalizedRL2 if kind == "rl2" else NormalizedTRPO


def score_policy(
    family: str, method: str, tasks: Sequence[Task], plan: Plan, folder: Path = POLICIES
) -> dict[str, Any]:
    """
    Score the trained model of a comparison.

    :param family: name of a task family
    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param tasks: test tasks
    :param plan: how
    :param folder: of the policies
    :return: see :func:`~benchmarks.locomotion.scoring.score_adaptation`
    :raises ValueError: if none is kept
    """
    model, kind = load_policy(family, method, folder), METHODS[method].kind
    if kind in ("meta", "untrained"):
        env = make_test_env(family, len(tasks), 1)
        try:
            return score_adaptation(model, env, tasks, plan)
        finally:
            env.close()
    from benchmarks.locomotion.plain import score_plain

    return score_plain(model, kind, family, settings_of(method, family), tasks, plan)


def best_seeds(results: Path) -> dict[tuple[str, str], int]:
    """
    The seeds whose return after one adaptation is highest, mean over tasks and both kinds of policy.

    They were chosen by their scores, which therefore are above those of their method.

    :param results: folder of the results
    :return: (family, label) -> seed
    """
    best: dict[tuple[str, str], int] = {}
    for (env, label, _), runs in group_runs(results).items():
        scores = np.mean([final_after_one(runs, kind).mean(1) for kind in ("stochastic", "deterministic")], axis=0)
        family = family_of(env)
        best[family, label] = runs[int(scores.argmax())]["seed"]
    return best


def prune(folder: Path = POLICIES, results: Path = RESULTS / "locomotion") -> list[Path]:
    """
    Delete the policies of all but the best seeds.

    :param folder: of the policies
    :param results: folder of the results
    :return: the policies that are left
    """
    kept = {f"{family}_{label}_seed_{seed}" for (family, label), seed in best_seeds(results).items()}
    for path in folder.glob("*.zip"):
        if path.stem not in kept:
            path.unlink()
    return sorted(folder.glob("*.zip"))
