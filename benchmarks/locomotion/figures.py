"""Figures of a comparison, from the result files alone: nothing is rescaled, shifted or smoothed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.locomotion.methods import METHODS
from benchmarks.locomotion.report import (
    Estimate,
    after_one,
    estimate,
    final_after_one,
    final_scores,
    group_runs,
    performance_profile,
    run_speed,
    seeds,
    training_rows,
)
from sb3_bomrl.plots import save_figure

COLOURS = (
    *("#1f5fa8", "#00a6a6", "#7a4fa3", "#d1495b", "#f2a0a9", "#b5651d"),
    *("#edae49", "#2e8b57", "#8a8a8a", "#c71585", "#000000", "#9acd32"),
)
"""Of the methods, in their order."""

Runs = Sequence[dict[str, Any]]


def figure_2(root: Path, path: Path, kind: str = "stochastic") -> Path:
    """
    Return against the number of adaptations at the end of training, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    """

    def draw(ax: Axes, runs: Runs, label: str, colour: str) -> None:
        scores = final_scores(runs, kind)
        if scores.shape[1] == 1:  # does not adapt
            ax.axhline(estimate(scores[:, 0]).value, color=colour, linestyle="--", label=label)
            return
        _band(ax, np.arange(scores.shape[1]), [estimate(scores[:, k]) for k in range(scores.shape[1])], label, colour)
        ax.set_xticks(np.arange(scores.shape[1]))

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

    def draw(ax: Axes, runs: Runs, label: str, colour: str) -> None:
        rows = list(zip(*(training_rows(run) for run in runs), strict=True))
        x = np.array([np.mean([row["env_steps"] for row in same]) for same in rows]) * scale(runs)
        estimates = [estimate(np.array([after_one(row, kind) for row in same])) for same in rows]
        if len(rows) == 1:  # not trained: its level is the same everywhere
            ax.axhline(estimates[0].value, color=colour, linestyle=":", label=label)
        else:
            _band(ax, x, estimates, label, colour)

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

    def draw(ax: Axes, runs: Runs, label: str, colour: str) -> None:
        ax.step(*performance_profile(final_after_one(runs, kind)), where="pre", label=label, color=colour)

    return _panels(root, path, draw, f"return after one adaptation, {kind} policy", "share of tasks × seeds above it")


def _order(label: str) -> tuple[int, str]:
    """Methods as they are listed, then others by name."""
    return (list(METHODS).index(label) if label in METHODS else len(METHODS), label)


def _panels(
    root: Path,
    path: Path,
    draw: Callable[[Axes, Runs, str, str], None],
    xlabel: str,
    ylabel: str,
    is_shown: Callable[[Runs], bool] = bool,
) -> Path:
    groups = {key: runs for key, runs in group_runs(root).items() if is_shown(runs)}
    if not groups:
        raise ValueError(f"results must have a finished run, found none in {root}")
    families = sorted({(env, timesteps) for env, _, timesteps in groups})
    methods = sorted({method for _, method, _ in groups}, key=_order)
    figure = Figure(figsize=(5.5 * len(families), 4.2), layout="constrained")
    axes = figure.subplots(1, len(families), squeeze=False)[0]
    for ax, (env, timesteps) in zip(axes, families, strict=True):
        for i, method in enumerate(methods):
            runs = groups.get((env, method, timesteps))
            if runs:  # methods that have no results are left out
                draw(ax, runs, f"{method} ({seeds(len(runs))})", COLOURS[i % len(COLOURS)])
        ax.set_title(f"{env}, {timesteps:,} steps", fontsize=10)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize=7)
    save_figure(figure, path)
    return path


def _band(ax: Axes, x: npt.NDArray, estimates: Sequence[Estimate], label: str, colour: str) -> None:
    """Interquartile mean, and its interval where there is one."""
    value, low, high = np.array(estimates).T
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(x, value, color=colour, marker="o", markersize=3, label=label)
