"""Figures of a comparison, from the result files alone: nothing is rescaled, shifted or smoothed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.locomotion.report import Estimate, estimate, final_scores, group_runs, performance_profile
from sb3_bomrl.plots import save_figure

COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#edae49", "#7a4fa3", "#00a6a6", "#8a8a8a", "#b5651d", "#3d3d3d")

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
        _band(ax, np.arange(scores.shape[1]), [estimate(scores[:, k]) for k in range(scores.shape[1])], label, colour)
        ax.set_xticks(np.arange(scores.shape[1]))

    return _panels(root, path, draw, "adaptations", f"return, {kind} policy")


def figure_5(root: Path, path: Path, against: str = "env_steps", kind: str = "stochastic") -> Path:
    """
    Return after one adaptation while meta-training, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param against: ``"env_steps"`` or ``"train_seconds"``
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    :raises ValueError: for another ``against``
    """
    labels = {"env_steps": "environment steps", "train_seconds": "seconds of training"}
    if against not in labels:
        raise ValueError(f"against must be one of {', '.join(labels)}, got {against!r}")

    def draw(ax: Axes, runs: Runs, label: str, colour: str) -> None:
        n_rows = min(len(run["rows"]) for run in runs)
        rows = [[run["rows"][i] for run in runs] for i in range(n_rows)]
        x = np.array([np.mean([row[against] for row in same]) for same in rows])
        estimates = [estimate(np.array([row[kind][1] for row in same])) for same in rows]
        if n_rows == 1:  # not trained: its level is the same everywhere
            ax.axhline(estimates[0].value, color=colour, linestyle=":", label=label)
        else:
            _band(ax, x, estimates, label, colour)

    return _panels(root, path, draw, labels[against], f"return after one adaptation, {kind} policy")


def profiles(root: Path, path: Path, kind: str = "stochastic") -> Path:
    """
    Share of tasks × seeds whose return after one adaptation is above a threshold, a panel per family.

    :param root: folder of the results
    :param path: PNG to write
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    """

    def draw(ax: Axes, runs: Runs, label: str, colour: str) -> None:
        ax.step(*performance_profile(final_scores(runs, kind)[:, 1]), where="pre", label=label, color=colour)

    return _panels(root, path, draw, f"return after one adaptation, {kind} policy", "share of tasks × seeds above it")


def _panels(root: Path, path: Path, draw: Callable[[Axes, Runs, str, str], None], xlabel: str, ylabel: str) -> Path:
    groups = group_runs(root)
    if not groups:
        raise ValueError(f"results must have a finished run, found none in {root}")
    families = sorted({(env, timesteps) for env, _, timesteps in groups})
    methods = sorted({method for _, method, _ in groups})
    figure = Figure(figsize=(5.5 * len(families), 4.2), layout="constrained")
    axes = figure.subplots(1, len(families), squeeze=False)[0]
    for ax, (env, timesteps) in zip(axes, families, strict=True):
        for i, method in enumerate(methods):
            runs = groups.get((env, method, timesteps))
            if runs:
                draw(ax, runs, f"{method} ({len(runs)} seed{'s' if len(runs) > 1 else ''})", COLOURS[i % len(COLOURS)])
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
