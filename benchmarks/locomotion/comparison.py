"""Methods against each other: how probably one beats another, by how much, and how early."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from benchmarks.locomotion.methods import METHODS, family_of
from benchmarks.locomotion.report import (
    Estimate,
    after_one,
    cell_of,
    draw_seeds,
    final_after_one,
    final_scores,
    group_runs,
    interquartile_mean,
    seeds,
    training_rows,
)

OURS = ("bomrl-alg1", "bomrl-alg2", "bomrl-alg3")
OTHERS = tuple(name for name, method in METHODS.items() if method.kind == "meta" and name not in OURS)
COLUMNS = (OURS, OTHERS, ("rl2",), ("random-init",))
"""Of the summary: labels of which the best counts."""

N_EVALUATIONS = 3
"""How many evaluations while training are averaged, as single ones go up and down."""

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
    for (env, _), groups in families(root).items():
        others = [label for label in groups if label not in OURS and METHODS[label].kind != "untrained"]
        for kind in ("deterministic", "stochastic"):
            found = {label: final_after_one(runs, kind) for label, runs in groups.items()}
            for other in others:
                cells = [_cell(found[label], found[other]) if label in found else "–" for label in OURS]
                lines.append(f"| {env} | {kind} | {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> str:
    return cell_of(difference(scores, others), min(len(scores), len(others)))


def level(run: dict[str, Any], share: float, kind: str) -> float:
    """
    How far training had come by then.

    :param run: a finished run
    :param share: of its environment steps
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: after one adaptation, interquartile mean over tasks, mean of the last evaluations up to there
    """
    rows = training_rows(run)
    limit = share * rows[-1]["env_steps"]
    until = [row for row in rows if row["env_steps"] <= limit][-N_EVALUATIONS:]
    return float(np.mean([interquartile_mean(after_one(row, kind)) for row in until]))


def level_table(root: Path) -> str:
    """
    :param root: folder of the results
    :return: of every method that is trained, how far each seed had come by half of the steps and by all of them
    """
    lines = ["| env | policy | method | by half of the steps | by all | each seed by half | by all |", "|---" * 7 + "|"]
    for (env, _), groups in families(root).items():
        for kind in ("deterministic", "stochastic"):
            for label, runs in groups.items():
                if METHODS[label].kind == "untrained":
                    continue
                levels = [[level(run, share, kind) for run in runs] for share in (0.5, 1.0)]
                cells = [f"{np.mean(values):.1f}" for values in levels]
                cells += [", ".join(f"{value:.1f}" for value in values) for values in levels]
                lines.append(f"| {env} | {kind} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary_table(root: Path) -> str:
    """
    :param root: folder of the results
    :return: per family and kind of policy the best of BO-MRL, the best of the other gradient methods, RL² and the
        untrained policy, with the best one's name; after one adaptation, and after one to three, whichever is best
    """
    lines = ["| env | policy | adaptations | BO-MRL | other gradient methods | RL² | untrained |", "|---" * 7 + "|"]
    for (env, _), groups in families(root).items():
        for kind in ("stochastic", "deterministic"):
            scores = {
                label: final_scores(groups[label], kind) for column in COLUMNS for label in column if label in groups
            }
            for most, name in ((1, "1"), (3, "best of 1 to 3")):
                means = {
                    label: max(interquartile_mean(found[:, k]) for k in range(1, most + 1))
                    for label, found in scores.items()
                }
                cells = [_best({label: means[label] for label in column if label in means}) for column in COLUMNS]
                lines.append(f"| {family_of(env)} | {kind} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(means: dict[str, float]) -> str:
    """The highest, and whose it is where there are several to choose from."""
    if not means:
        return "–"
    label = max(means, key=means.__getitem__)
    return f"{means[label]:.1f}" + (f" ({label})" if METHODS[label].kind == "meta" else "")
