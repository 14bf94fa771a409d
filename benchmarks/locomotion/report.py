"""What the result files say: interquartile means over tasks × seeds with bootstrap intervals."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import trim_mean

from benchmarks.locomotion.methods import METHODS, family_of

N_BOOTSTRAP = 2_000


class Estimate(NamedTuple):
    """
    :param value: interquartile mean over tasks × seeds
    :param low: lower end of the 95 % interval
    :param high: upper end
    """

    value: float
    low: float
    high: float


def load_runs(root: Path) -> list[dict[str, Any]]:
    """
    :param root: folder of the results
    :return: the finished runs, ordered by environment, method and seed
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*/*/seed_*.json"))]
    return [run for run in runs if run["rows"][-1]["is_final"]]


def interquartile_mean(scores: npt.NDArray[np.float64]) -> float:
    """
    Mean of the middle half (Agarwal et al., 2021).

    :param scores: (n_seeds, n_tasks)
    :return: over both axes
    """
    return float(trim_mean(scores, 0.25, axis=None))


def estimate(scores: npt.NDArray[np.float64], seed: int = 0) -> Estimate:
    """
    The interquartile mean with the interval of a bootstrap that draws whole seeds.

    One meta-policy plays all tasks of a seed, so that its scores rise and fall together. rliable's stratified bootstrap
    draws the seeds anew within each task, as if every task had runs of its own: that would be narrower than it may be.

    :param scores: (n_seeds, n_tasks)
    :param seed: of the draws
    :return: value and 95 % percentile interval
    """
    low, high = np.percentile(draw_seeds(scores, seed), [2.5, 97.5])
    return Estimate(interquartile_mean(scores), float(low), float(high))


def draw_seeds(scores: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """
    :param scores: (n_seeds, n_tasks)
    :param seed: of the draws
    :return: (n_draws,) interquartile means of as many seeds as there are, drawn with replacement
    """
    rows = np.random.default_rng(seed).integers(len(scores), size=(N_BOOTSTRAP, len(scores)))
    return trim_mean(scores[rows].reshape(N_BOOTSTRAP, -1), 0.25, axis=1)


def final_scores(runs: Sequence[dict[str, Any]], kind: str) -> npt.NDArray[np.float64]:
    """
    :param runs: of one method on one family
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: (n_seeds, K + 1, n_tasks)
    """
    return np.array([scores_by_task(run["rows"][-1], kind) for run in runs])


def scores_by_task(row: dict[str, Any], kind: str) -> npt.NDArray[np.float64]:
    """
    :param row: an evaluation
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: (K + 1, n_tasks); a task that was adapted to repeatedly counts once, by the mean
    """
    names = [json.dumps(task) for task in row["tasks"]]
    scores = np.array(row[kind])
    same = [[other == name for other in names] for name in dict.fromkeys(names)]
    return np.stack([scores[:, mask].mean(1) for mask in np.array(same)], axis=1)


def training_rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """
    :param run: a finished run
    :return: its evaluations while training, all with the same protocol: before the first iteration … after the last
    """
    return [row for row in run["rows"] if not row["is_final"]]


def after_one(row: dict[str, Any], kind: str) -> npt.NDArray[np.float64]:
    """
    :param row: an evaluation
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: (n_tasks,) after one adaptation; of a policy that does not adapt those that there are
    """
    scores = scores_by_task(row, kind)
    return scores[min(1, len(scores) - 1)]


def final_after_one(runs: Sequence[dict[str, Any]], kind: str) -> npt.NDArray[np.float64]:
    """
    :param runs: of one method on one family
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: (n_seeds, n_tasks), at the end of training
    """
    return np.array([after_one(run["rows"][-1], kind) for run in runs])


def performance_profile(scores: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """
    :param scores: any shape
    :return: every score in ascending order, and the share of scores that are at least as high; then the highest once
        more, which none is above
    """
    ordered = np.sort(scores.ravel())
    return np.append(ordered, ordered[-1]), 1.0 - np.arange(len(ordered) + 1) / len(ordered)


def group_runs(root: Path) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    """
    :param root: folder of the results
    :return: (environment, label of the method, environment steps asked for) -> the finished runs
    """
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in load_runs(root):
        groups.setdefault((run["env"], run["label"], run["timesteps"]), []).append(run)
    return groups


def speed_path(root: Path, family: str) -> Path:
    """
    :return: the file of a family's measurements
    """
    return root / family / "speed.json"


def seconds_per_step(root: Path, family: str) -> dict[str, float]:
    """
    :param root: folder of the results
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :return: method -> median seconds per environment step of training; nothing for what was not measured
    """
    path = speed_path(root, family)
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["method"]: float(np.median(row["seconds"])) / row["env_steps"] for row in rows}


def run_speed(root: Path, run: dict[str, Any]) -> float | None:
    """
    :param root: folder of the results
    :param run: of which the settings are the configuration file's
    :return: seconds of training per environment step, 0 for what does not train, ``None`` where it was not measured
    """
    speeds = seconds_per_step(root, family_of(run["env"]))
    if speeds and METHODS[run["method"]].kind == "untrained":
        return 0.0
    return speeds.get(run["method"])


def markdown_table(root: Path) -> str:
    """
    :param root: folder of the results
    :return: a table of every finished method, family and kind of policy, and what they were run on; its last column is
        the mean over tasks of each seed after one adaptation, in which one bad task shows
    """
    lines = [
        "| env | method | env steps | seeds | s per run | policy | 0 | 1 | 2 | 3 adaptations | each seed after 1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = group_runs(root)
    for (env, method, _), runs in groups.items():
        steps = int(np.median([run["rows"][-1]["env_steps"] for run in runs]))
        speed = run_speed(root, runs[0])
        seconds = "–" if speed is None else f"{speed * steps:.0f}"
        for kind in ("deterministic", "stochastic"):
            scores = final_scores(runs, kind)
            cells = [cell_of(estimate(scores[:, k]), len(runs)) for k in range(scores.shape[1])]
            cells += ["–"] * (4 - len(cells))
            cells.append(", ".join(f"{value:.1f}" for value in final_after_one(runs, kind).mean(1)))
            first = f"| {env} | {method} | {steps:,} | {len(runs)} | {seconds} | {kind} | "
            lines.append(first + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _hardware([run for runs in groups.values() for run in runs])])


def _hardware(runs: Sequence[dict[str, Any]]) -> str:
    """What runs were made on, in words."""
    counts = Counter(run["provenance"]["hardware"] for run in runs)
    return "Made on: " + "; ".join(f"{name} ({n} runs)" for name, n in counts.most_common()) + "."


def seeds(n: int) -> str:
    """
    :param n: how many
    :return: in words
    """
    return f"{n} seed{'s' if n > 1 else ''}"


def cell_of(estimated: Estimate, n_seeds: int) -> str:
    """
    :param estimated: value and interval
    :param n_seeds: the fewest that it is made of
    :return: in the words of a table; one seed has no interval
    """
    value, low, high = estimated
    return f"{value:.1f}" + (f" ({low:.1f}, {high:.1f})" if n_seeds > 1 else "")
