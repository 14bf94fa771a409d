"""
Figures of adaptation. Needs matplotlib (the ``plots`` extra).

Each function draws in the axes it is given, or in those of a new figure, ``ax.figure``. ``pyplot`` is not used: no
state is shared, and no display is needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sb3_bomrl.algorithms.evaluation import AdaptationCurve
from sb3_bomrl.saving.files import make_folder, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f5fa8", "#d1495b", "#8a8a8a", "#2e8b57", "#edae49", "#7a4fa3")


def plot_adaptation_curves(curves: Mapping[str, AdaptationCurve], ax: "Axes | None" = None) -> "Axes":
    """
    Draw the mean return over tasks against the number of adaptations, with the middle half of the tasks as a band.

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
    Draw what was achieved against what each task asked for, after 0, 1 and K adaptations.

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
        ax.plot(goals, curve.measured[k], color=colour, marker=marker, markersize=4, linewidth=1.2, label=_after(k))
    ax.set_xlabel(f"goal {goal_name}")
    ax.set_ylabel(f"achieved {goal_name}")
    ax.legend(frameon=False)
    return ax


def plot_trajectories(
    paths: npt.ArrayLike, goals: npt.ArrayLike | None = None, name: str = "position", ax: "Axes | None" = None
) -> "Axes":
    """
    Draw one episode of every task before the first and after the last adaptation, a colour per task.

    Paths in the plane are drawn as such, numbers against the steps of the episode. ``measured`` of an
    ``AdaptationCurve`` holds them if ``measure`` returns them.

    :param paths: (K + 1, n_tasks, n_steps, 2) or (K + 1, n_tasks, n_steps), after 0 … K adaptations
    :param goals: (n_tasks, 2) or (n_tasks,), what each task asks for, in the same unit
    :param name: of the quantity, for the axes
    :param ax: axes to draw in; new ones if not given
    :return: the axes
    :raises ValueError: if ``paths`` or ``goals`` has another shape
    """
    drawn = np.asarray(paths, dtype=float)
    if drawn.ndim not in (3, 4) or drawn.shape[3:] not in ((), (2,)):
        raise ValueError(f"paths must have shape (K + 1, n_tasks, n_steps) or one more axis of 2, got {drawn.shape}")
    wanted = None if goals is None else np.asarray(goals, dtype=float)
    if wanted is not None and wanted.shape != drawn.shape[1:2] + drawn.shape[3:]:
        raise ValueError(
            f"goals must have shape {drawn.shape[1:2] + drawn.shape[3:]} for these paths, got {wanted.shape}"
        )
    ax = _axes(ax)
    last, n_tasks, n_steps = len(drawn) - 1, *drawn.shape[1:3]
    for k, style in {0: ":", last: "-"}.items():
        for task, colour in enumerate(_colours(n_tasks)):
            x, y = drawn[k, task].T if drawn.ndim == 4 else (np.arange(n_steps), drawn[k, task])
            ax.plot(x, y, style, color=colour, linewidth=1.2, label=_after(k) if task == 0 else None)
    if wanted is not None:
        _mark_goals(ax, wanted)
    if drawn.ndim == 4:
        ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(f"{name}, x" if drawn.ndim == 4 else "step of the episode")
    ax.set_ylabel(f"{name}, y" if drawn.ndim == 4 else name)
    ax.legend(frameon=False)
    return ax


def save_figure(figure: Any, path: str | Path) -> Path:
    """
    Save a figure; the file is written under a temporary name and renamed.

    :param figure: matplotlib figure
    :param path: file name, whose suffix is the format
    :return: the path
    """
    path = Path(path)
    make_folder(path.parent)
    file_format = path.suffix.removeprefix(".")
    write_atomically(path, lambda file: figure.savefig(file, format=file_format, dpi=150, bbox_inches="tight"))
    return path


def _mark_goals(ax: "Axes", goals: npt.NDArray) -> None:
    """Draw a star for a point in the plane, a dashed line for a number; one of them in the legend."""
    for task, (goal, colour) in enumerate(zip(goals, _colours(len(goals)), strict=True)):
        label = "asked for" if task == 0 else None
        if goals.ndim == 2:
            ax.plot(*goal, "*", color=colour, markersize=11, markeredgecolor="black", markeredgewidth=0.5, label=label)
        else:
            ax.axhline(goal, color=colour, linewidth=0.8, linestyle="--", label=label)


def _after(k: int) -> str:
    return "before adaptation" if k == 0 else f"after {k} adaptation{'s' if k > 1 else ''}"


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5, 4)).subplots()


def _colours(n: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]
