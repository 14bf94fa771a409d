"""Figures of adaptation. Needs matplotlib (the ``plots`` extra)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_bomrl.files import write_atomically
from sb3_bomrl.meta.evaluation import AdaptationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f5fa8", "#d1495b", "#8a8a8a", "#2e8b57", "#edae49", "#7a4fa3")


def plot_adaptation_curves(curves: Mapping[str, AdaptationCurve], ax: "Axes | None" = None) -> "Axes":
    """
    Mean return over tasks against the number of adaptations, with the spread over tasks.

    :param curves: label -> curve, all on the same tasks
    :param ax: axes to draw in; new ones if not given
    :return: the axes
    """
    ax = _axes(ax)
    for (label, curve), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        per_task = curve.returns.mean(2)
        k = np.arange(len(per_task))
        ax.fill_between(k, *np.percentile(per_task, (25, 75), axis=1), color=colour, alpha=0.15, linewidth=0, zorder=1)
        ax.plot(k, per_task.mean(1), color=colour, marker="o", label=label, zorder=2)
    ax.set_xticks(np.arange(max(len(curve.returns) for curve in curves.values())))
    ax.set_xlabel("adaptations")
    ax.set_ylabel("return (mean over tasks; band: middle half of the tasks)")
    ax.legend(frameon=False)
    return ax


def plot_goal_tracking(curve: AdaptationCurve, goal_name: str = "velocity", ax: "Axes | None" = None) -> "Axes":
    """
    What was achieved against what each task asked for, after 0 … K adaptations.

    :param curve: of tasks that are numbers, with ``measured`` in the same unit
    :param goal_name: what the task asks for
    :param ax: axes to draw in; new ones if not given
    :return: the axes
    :raises ValueError: if the curve has no ``measured``
    """
    if curve.measured is None:
        raise ValueError("curve must have measured values, got None: pass measure= to evaluate_adaptation")
    ax = _axes(ax)
    goals = np.array(curve.tasks, dtype=float)
    ends = np.array([goals.min(), goals.max()])
    ax.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="asked for")
    chosen = sorted({0, 1, len(curve.measured) - 1} & set(range(len(curve.measured))))
    for k, colour, marker in zip(chosen, ("#8a8a8a", "#1f5fa8", "#d1495b"), ("s", "o", "^"), strict=False):
        label = "before adaptation" if k == 0 else f"after {k} adaptation{'s' if k > 1 else ''}"
        ax.plot(goals, curve.measured[k], color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    ax.set_xlabel(f"goal {goal_name}")
    ax.set_ylabel(f"achieved {goal_name}")
    ax.legend(frameon=False)
    return ax


def save_figure(figure: Any, path: str | Path) -> Path:
    """
    Write a figure under a temporary name and rename it.

    :param figure: matplotlib figure
    :param path: file name with the format's suffix
    :return: the path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file_format = path.suffix.removeprefix(".")
    write_atomically(path, lambda file: figure.savefig(file, format=file_format, dpi=150, bbox_inches="tight"))
    return path


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5, 4)).subplots()


def _colours(n: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]
