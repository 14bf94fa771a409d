"""Statistics of a comparison: the unit is the seed, whose score is its mean over tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.methods import METHODS
from benchmarks.records import Row, finished_runs, read_rows

CONFIDENCE = 0.95
Array = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean and its interval."""

    mean: float
    half_width: float


class Group(NamedTuple):
    """
    Finished runs of one method on one family.

    :param env: Gymnasium id of the family
    :param label: of the method, with what was overridden
    :param seeds: in ascending order
    :param env_steps: of training
    :param final: by kind of policy (n_seeds, K + 1) scores at the end of training
    :param curves: by kind of policy (n_seeds, n_evaluations) scores after one adaptation, before training … at its end
    :param curve_env_steps: (n_evaluations,)
    """

    env: str
    label: str
    seeds: list[int]
    env_steps: int
    final: dict[str, Array]
    curves: dict[str, Array]
    curve_env_steps: Array

    @property
    def method(self) -> str:
        """Key of :data:`~benchmarks.methods.METHODS`."""
        return self.label.split(" ")[0]

    def after(self, policy: str, adaptations: int) -> Array:
        """Return the score of every seed after so many adaptations; of a policy that does not adapt, as it is."""
        scores = self.final[policy]
        return scores[:, min(adaptations, scores.shape[1] - 1)]


def load_groups(path: Path) -> list[Group]:
    """Return the finished runs of a suite by family and method, families in the order of the file."""
    finished = finished_runs(path)
    runs: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in read_rows(path):
        if (row.method, row.env, row.seed) in finished:
            runs.setdefault((row.env, row.method), {}).setdefault(row.seed, []).append(row)
    if not runs:
        raise ValueError(f"results must have a finished run, found none in {path}")
    return [_group(env, label, dict(sorted(seeds.items()))) for (env, label), seeds in runs.items()]


def _group(env: str, label: str, seeds: dict[int, list[Row]]) -> Group:
    policies = sorted({row.policy for rows in seeds.values() for row in rows}, reverse=True)
    final = {policy: np.array([_final(rows, policy) for rows in seeds.values()]) for policy in policies}
    curves = {policy: [_curve(rows, policy) for rows in seeds.values()] for policy in policies}
    steps, _ = curves[policies[0]][0]
    scores = {policy: np.array([values for _, values in found]) for policy, found in curves.items()}
    return Group(env, label, list(seeds), int(steps[-1]), final, scores, np.array(steps))


def _final(rows: Sequence[Row], policy: str) -> list[float]:
    """Means over tasks at the end of training, after 0 … K adaptations."""
    last = max(row.env_steps for row in rows)
    chosen = [row for row in rows if row.env_steps == last and row.policy == policy]
    ks = sorted({row.adaptations for row in chosen})
    return [float(np.mean([row.score for row in chosen if row.adaptations == k])) for k in ks]


def _curve(rows: Sequence[Row], policy: str) -> tuple[list[float], list[float]]:
    """Environment steps and means after one adaptation, over the tasks that every evaluation has."""
    most = min(1, max(row.adaptations for row in rows))
    by_steps: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.policy == policy and row.adaptations == most:
            by_steps.setdefault(row.env_steps, {})[row.task] = row.score
    common = set.intersection(*(set(tasks) for tasks in by_steps.values()))
    steps = sorted(by_steps)
    return [float(n) for n in steps], [float(np.mean([by_steps[n][task] for task in common])) for n in steps]


def estimate(scores: Array) -> Estimate:
    """Return the mean of seeds with Student's interval."""
    n = len(scores)
    if n == 1:
        return Estimate(float(scores[0]), float("inf"))
    quantile = stats.t.ppf((1.0 + CONFIDENCE) / 2.0, n - 1)
    return Estimate(float(scores.mean()), float(quantile * scores.std(ddof=1) / np.sqrt(n)))


def difference(scores: Array, others: Array) -> Estimate:
    """Return the difference of two means of seeds with Welch's interval."""
    mean = float(scores.mean() - others.mean())
    if min(len(scores), len(others)) == 1:
        return Estimate(mean, float("inf"))
    low, high = stats.ttest_ind(scores, others, equal_var=False).confidence_interval(CONFIDENCE)
    return Estimate(mean, float(high - low) / 2.0)


def in_order(groups: Sequence[Group]) -> list[Group]:
    """Return groups of one family in the order of :data:`~benchmarks.methods.METHODS`, variants as they are."""
    return sorted(groups, key=lambda group: list(METHODS).index(group.method))
