"""Figures of a comparison, from the result files alone: nothing is rescaled, shifted or smoothed."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.locomotion.comparison import families
from benchmarks.locomotion.methods import METHODS, family_of
from benchmarks.locomotion.report import (
    Estimate,
    after_one,
    estimate,
    final_after_one,
    final_scores,
    performance_profile,
    run_speed,
    seeds,
    training_rows,
)
from sb3_bomrl.plots import save_figure

COLOURS = dict(
    zip(
        METHODS,
        (
            *("#1f5fa8", "#00a6a6", "#7a4fa3", "#d1495b", "#f2a0a9", "#8c4a1a"),
            *("#edae49", "#2e8b57", "#8a8a8a", "#e0339b", "#000000", "#9acd32"),
        ),
        strict=True,
    )
)
MARKERS = dict(zip(METHODS, "oooD<>sPXdhv", strict=True))
N_COLUMNS = 3
PANEL_SIZE = (3.2, 2.8)
"""Inches; the page shows three panels side by side."""

Runs = Sequence[dict[str, Any]]
Draw = Callable[[Axes, dict[str, Runs]], None]
"""Draws the runs of one family by method; labels of lines are methods."""


def figure_2(root: Path, path: Path, kind: str = "stochastic") -> Path:
    """
    Return against the number of adaptations at the end of training, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    """

    def draw(ax: Axes, groups: dict[str, Runs]) -> None:
        found = {}
        for method, runs in groups.items():
            scores = final_scores(runs, kind)
            found[method] = [estimate(scores[:, k]) for k in range(scores.shape[1])]
            if len(found[method]) == 1:  # does not adapt
                ax.axhline(found[method][0].value, color=COLOURS[method], linestyle="--", label=method)
            else:
                _band(ax, np.arange(scores.shape[1]), found[method], method)
        ax.set_xticks(np.arange(max(len(estimates) for estimates in found.values())))
        before = float(np.median([estimates[0].value for estimates in found.values()]))
        _limit(ax, "y", [before, *(estimates[:2][-1].value for estimates in found.values())])

    return _panels(root, path, draw, "adaptations", f"return, {kind} policy")


def figure_5(root: Path, path: Path, against: str = "env_steps", kind: str = "stochastic") -> Path:
    """
    Return after one adaptation while meta-training, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param against: ``"env_steps"``, or ``"seconds"`` of training, by the measured speed of every method; what was
        not measured is left out
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    :raises ValueError: for another ``against``, and if there is nothing to draw
    """
    labels = {"env_steps": "environment steps", "seconds": "seconds of training"}
    if against not in labels:
        raise ValueError(f"against must be one of {', '.join(labels)}, got {against!r}")

    def scale(runs: Runs) -> float | None:
        return 1.0 if against == "env_steps" else run_speed(root, runs[0])

    def draw(ax: Axes, groups: dict[str, Runs]) -> None:
        for method, runs in groups.items():
            rows = list(zip(*(training_rows(run) for run in runs), strict=True))
            x = np.array([np.mean([row["env_steps"] for row in same]) for same in rows]) * scale(runs)
            estimates = [estimate(np.array([after_one(row, kind) for row in same])) for same in rows]
            if len(rows) == 1:  # not trained: its level is the same everywhere
                ax.axhline(estimates[0].value, color=COLOURS[method], linestyle=":", label=method)
            else:
                _band(ax, x, estimates, method)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))

    ylabel = f"return after one adaptation, {kind} policy"
    return _panels(root, path, draw, labels[against], ylabel, lambda runs: scale(runs) is not None)


def profiles(root: Path, path: Path, kind: str = "stochastic") -> Path:
    """
    Share of tasks × seeds whose return after one adaptation is above a threshold, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    """

    def draw(ax: Axes, groups: dict[str, Runs]) -> None:
        found = {method: final_after_one(runs, kind) for method, runs in groups.items()}
        for method, scores in found.items():
            ax.step(*performance_profile(scores), where="pre", label=method, color=COLOURS[method])
        _limit(ax, "x", np.percentile(np.concatenate([scores.ravel() for scores in found.values()]), [5, 100]))

    return _panels(root, path, draw, f"return after one adaptation, {kind} policy", "share of tasks × seeds above it")


def _panels(
    root: Path, path: Path, draw: Draw, xlabel: str, ylabel: str, is_shown: Callable[[Runs], bool] = bool
) -> Path:
    """A panel per family, in rows, and the legend of all in the last cell."""
    shown = {
        family: {method: groups[method] for method in METHODS if method in groups and is_shown(groups[method])}
        for family, groups in families(root).items()
    }
    shown = {family: groups for family, groups in shown.items() if groups}
    if not shown:
        raise ValueError(f"results must have a finished run, found none in {root}")
    n_columns = min(N_COLUMNS, len(shown) + 1)
    n_rows = -(-(len(shown) + 1) // n_columns)
    figure = Figure(figsize=(PANEL_SIZE[0] * n_columns, PANEL_SIZE[1] * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax, ((env, timesteps), groups) in zip(axes, shown.items(), strict=False):
        draw(ax, groups)
        ax.set_title(f"{family_of(env)}, {timesteps:,} steps\n{_seeds_of(groups)}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
    _legend(axes[len(shown)], axes[: len(shown)])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    save_figure(figure, path)
    return path


def _seeds_of(groups: dict[str, Runs]) -> str:
    """How many most methods have, and the methods that have others."""
    counts = {method: len(runs) for method, runs in groups.items()}
    usual = Counter(counts.values()).most_common(1)[0][0]
    others = [f"{method}: {n}" for method, n in counts.items() if n != usual]
    return seeds(usual) + (f" ({', '.join(others)})" if others else "")


def _legend(cell: Axes, panels: Sequence[Axes]) -> None:
    """What the lines of all panels are, each once."""
    lines = {line.get_label(): line for ax in panels for line in ax.lines}
    found = [method for method in METHODS if method in lines]
    cell.legend([lines[method] for method in found], found, loc="center", frameon=False, fontsize=10)


def _limit(ax: Axes, axis: str, values: npt.ArrayLike) -> None:
    """
    Leave out what is far below, and say so.

    :param axis: ``"x"`` or ``"y"``
    :param values: the lower end is half their range below the lowest, so that they have most of the axis
    """
    lowest = np.min(values) - np.ptp(values) / 2
    drawn = np.concatenate([getattr(line, f"get_{axis}data")() for line in ax.lines])
    if drawn.min() < lowest:
        margin = 0.05 * (drawn.max() - lowest)
        ax.set(**{f"{axis}lim": (lowest, drawn.max() + margin)})
        text = f"{'↓' if axis == 'y' else '←'} lines go on to {drawn.min():.0f}".replace("-", "−")
        box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.text(0.02, 0.03, text, fontsize=8, transform=ax.transAxes, bbox=box)


def _band(ax: Axes, x: npt.NDArray, estimates: Sequence[Estimate], method: str) -> None:
    """Interquartile mean, and its interval where there is one."""
    value, low, high = np.array(estimates).T
    ax.fill_between(x, low, high, color=COLOURS[method], alpha=0.15, linewidth=0)
    ax.plot(x, value, color=COLOURS[method], marker=MARKERS[method], markersize=4, label=method)
