"""Methods against each other: how probably one beats another, and by how much."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from benchmarks.locomotion.methods import METHODS
from benchmarks.locomotion.report import (
    Estimate,
    cell_of,
    draw_seeds,
    final_after_one,
    group_runs,
    interquartile_mean,
    seeds,
)

Groups = dict[str, list[dict[str, Any]]]
"""Label of a method -> its runs on one family."""


def probability_of_improvement(scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    """
    Chance that a run of one method beats one of another on a task, mean over tasks; ties count half.

    :param scores: (n_seeds, n_tasks)
    :param others: (n_other_seeds, n_tasks)
    :return: between 0 and 1
    """
    n_pairs = len(scores) * len(others)
    return float(np.mean([mannwhitneyu(a, b).statistic for a, b in zip(scores.T, others.T, strict=True)]) / n_pairs)


def difference(scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> Estimate:
    """
    Difference of two interquartile means, with the interval of a bootstrap that draws whole seeds of both.

    :param scores: (n_seeds, n_tasks)
    :param others: (n_other_seeds, n_tasks)
    :return: value and 95 % percentile interval
    """
    draws = draw_seeds(scores, seed=0) - draw_seeds(others, seed=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(interquartile_mean(scores) - interquartile_mean(others), float(low), float(high))


def families(root: Path) -> dict[tuple[str, int], Groups]:
    """
    :param root: folder of the results
    :return: (environment, environment steps asked for) -> label of the method -> the finished runs
    """
    found: dict[tuple[str, int], Groups] = {}
    for (env, label, timesteps), runs in group_runs(root).items():
        found.setdefault((env, timesteps), {})[label] = runs
    return dict(sorted(found.items()))


def improvement_table(root: Path, kind: str = "stochastic") -> str:
    """
    :param root: folder of the results
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: how probably the method of a row beats that of a column after one adaptation, a table per family
    """
    tables = []
    for (env, timesteps), groups in families(root).items():
        found = {label: final_after_one(runs, kind) for label, runs in groups.items()}
        lines = [f"{env}, {timesteps:,} steps, {kind} policy", ""]
        lines += [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
        for method, scores in found.items():
            cells = [
                "" if other == method else f"{probability_of_improvement(scores, others):.2f}"
                for other, others in found.items()
            ]
            lines.append(f"| {method} ({seeds(len(scores))}) | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def difference_table(root: Path) -> str:
    """
    :param root: folder of the results
    :return: by how much BO-MRL's returns after one adaptation are above those of every other method that is trained
    """
    lines = ["| env | policy | less | bomrl-alg1 | bomrl-alg2 | bomrl-alg3 |", "|---|---|---|---|---|---|"]
    ours = ("bomrl-alg1", "bomrl-alg2", "bomrl-alg3")
    for (env, _), groups in families(root).items():
        others = [label for label in groups if label not in ours and METHODS[label].kind != "untrained"]
        for kind in ("deterministic", "stochastic"):
            found = {label: final_after_one(runs, kind) for label, runs in groups.items()}
            for other in others:
                cells = [_cell(found[label], found[other]) if label in found else "–" for label in ours]
                lines.append(f"| {env} | {kind} | {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> str:
    return cell_of(difference(scores, others), min(len(scores), len(others)))
