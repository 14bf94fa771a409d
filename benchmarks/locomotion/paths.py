"""Paths on Navigation2D before and after one adaptation: the kept policies play as they did when they were scored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.locomotion.methods import FAMILIES, METHODS
from benchmarks.locomotion.policies import kept_policies, score_policy
from benchmarks.locomotion.runs import PACKAGES, POLICIES, PROTOCOL
from benchmarks.locomotion.scoring import Plan, choose_tasks
from benchmarks.provenance import machine, provenance, write_json
from sb3_bomrl.plots import plot_trajectories, save_figure

FAMILY = "Navigation2D"
PLAN = Plan(1, FAMILIES[FAMILY], PROTOCOL.n_eval_episodes, PROTOCOL.max_tasks, keeps_paths=True)
N_COLUMNS, WINDOW = 4, 2.0
"""Panels of a row, and how much wider than the square of goals they are; paths may leave them."""


def paths_path(root: Path) -> Path:
    """
    :param root: folder of the results
    :return: the file of the paths
    """
    return root / FAMILY / "paths.json"


def play(root: Path, command: str, policies: Path = POLICIES) -> Path:
    """
    Play the kept policies, with the random numbers of the end of their training: the adaptation is the scored one.

    :param root: folder of the results
    :param command: what to name as the command in the file
    :param policies: folder of the policies
    :return: the file
    """
    tasks, rows = choose_tasks(FAMILY, PLAN.max_tasks), []
    for (family, method), seed in kept_policies(policies).items():
        if family == FAMILY:
            played = score_policy(FAMILY, method, tasks, PLAN, policies)
            rows.append({"method": method, "seed": seed, "tasks": played["path_tasks"], "paths": played["paths"]})
            print(f"{FAMILY} {method} seed {seed}: {len(tasks)} tasks", flush=True)
    rows.sort(key=lambda row: list(METHODS).index(row["method"]))
    return write_json(paths_path(root), {"provenance": provenance(command, machine(), PACKAGES), "rows": rows})


def draw_paths(root: Path, path: Path) -> Path:
    """
    Paths before and after one adaptation, a panel per method, a colour per task.

    :param root: folder of the results
    :param path: PNG to write
    :return: the PNG
    """
    rows = json.loads(paths_path(root).read_text(encoding="utf-8"))["rows"]
    n_columns = min(N_COLUMNS, len(rows))
    n_rows = -(-len(rows) // n_columns)
    figure = Figure(figsize=(2.4 * n_columns, 2.55 * n_rows + 0.6), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).flat)
    for ax, row in zip(axes, rows, strict=False):
        _draw(ax, row)
    for ax in axes[len(rows) :]:
        ax.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"{FAMILY}, deterministic policy, before and after one adaptation", fontsize=11)
    save_figure(figure, path)
    return path


def _draw(ax: Axes, row: dict[str, Any]) -> None:
    """One method, in a window that is the same for all."""
    plot_trajectories(row["paths"], row["tasks"], ax=ax)
    ax.get_legend().remove()
    half = WINDOW * np.abs(row["tasks"]).max()
    ax.set(xlim=(-half, half), ylim=(-half, half), xlabel="", ylabel="")
    ax.set_aspect("equal", adjustable="box")
    ax.tick_params(labelsize=8)
    others = {"oracle": "sees the goal", "rl2": "adapted by one episode"}
    how = others.get(METHODS[row["method"]].kind, f"adapted to {PLAN.n_episodes} episodes")
    ax.set_title(f"{row['method']}, seed {row['seed']}\n{how}", fontsize=9)
