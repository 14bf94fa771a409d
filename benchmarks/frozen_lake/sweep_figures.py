"""Figures that the paper lacks: gap and bounds against lambda and task variance, and the meta-gradient's norm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.frozen_lake.plotting import BOUND_STYLES, FAMILY_TITLES, TITLES, Row, save_figure, select
from benchmarks.frozen_lake.results import load

GAP_FLOOR = 1e-4
"""Gaps below this are drawn at it on logarithmic axes."""


def lambda_figure() -> Path:
    """Gap and bounds against lambda, one panel per algorithm."""
    rows = load("lambda")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained", sharey=True)
    for axis, method in zip(axes, TITLES, strict=True):
        chosen = select(rows, method=method)
        _draw_against([row["reg_coef"] for row in chosen], chosen, axis)
        axis.set_xscale("log")
        axis.set_xlabel("λ")
        axis.set_title(TITLES[method], fontsize=10)
    axes[0].set_ylabel("optimality gap after one adaptation")
    axes[1].legend(fontsize=8, loc="upper left")
    figure.suptitle("Gap and bounds against λ: high task variance, the 20 training maps, meta-trained at every λ")
    return save_figure(figure, "frozen_lake_lambda.png")


def variance_figure() -> Path:
    """Gap and bounds against the task variance, one column per algorithm, one row per family."""
    rows = load("variance")
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained", sharey="row")
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        for axis, method in zip(line, TITLES, strict=True):
            chosen = sorted(select(rows, family=family, method=method), key=lambda row: row["smallest_task_variance"])
            _draw_against([row["smallest_task_variance"] for row in chosen], chosen, axis, style="none")
            axis.set_title(f"{TITLES[method]}, λ = {chosen[0]['reg_coef']:g}\n{FAMILY_TITLES[family]}", fontsize=10)
            axis.set_xlabel("smallest task variance of the maps (nats)")
        line[0].set_ylabel("optimality gap after one adaptation")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncol=len(labels))
    figure.suptitle("Gap and bounds against task variance: 1, 2, 3, 5, 10 and 20 different maps, three seeds each")
    return save_figure(figure, "frozen_lake_variance.png")


def _draw_against(x: Sequence[float], rows: list[Row], axis: Axes, style: str | None = None) -> None:
    """The gap and every bound; B4 is hollow and grey where its condition fails on some task, where it is no bound."""
    gap = np.maximum([row["gap_one_adaptation"] for row in rows], GAP_FLOOR)
    axis.plot(x, gap, linestyle=style or "-", color="k", marker="o", markersize=4, label="gap")
    for bound, (colour, line) in BOUND_STYLES.items():
        if bound == "B4" or rows[0][bound] is None:
            continue
        values = [row[bound] for row in rows]
        axis.plot(x, values, linestyle=style or line, color=colour, marker="s", markersize=3, label=bound)
    holds = np.array([row["B4_holds_share"] == 1 for row in rows])
    values = np.array([row["B4"] for row in rows])
    colour = BOUND_STYLES["B4"][0]
    axis.plot(np.array(x)[holds], values[holds], "D", color=colour, markersize=4, label="B4, condition holds")
    if not holds.all():
        label = "B4's value, condition fails: no bound"
        hollow = np.maximum(values[~holds], GAP_FLOOR)
        axis.plot(np.array(x)[~holds], hollow, "D", color="0.6", fillstyle="none", markersize=4, label=label)
    axis.set_yscale("log")
    axis.grid(alpha=0.3)


def convergence_figure() -> Path:
    """Norm of the exact meta-gradient under gradient ascent, with the slope of the guaranteed rate."""
    rows = load("convergence")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for index, row in enumerate(rows):
        label = f"{TITLES[row['method']]}, λ = {row['reg_coef']:g}, step {row['step']:g}"
        axes[0].plot(row["iterations"], row["gradient_norm"], color=f"C{index}", alpha=0.35)
        axes[0].plot(row["iterations"], row["smallest_so_far"], color=f"C{index}", label=label)
        axes[1].plot(row["iterations"], row["return"], color=f"C{index}")
    iterations = np.array(rows[0]["iterations"], dtype=float)
    axes[0].plot(iterations, rows[0]["gradient_norm"][0] / np.sqrt(iterations), "k:", label="slope of $1/\\sqrt{T}$")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("norm of the meta-gradient (bold: smallest so far)")
    axes[0].legend(fontsize=8, loc="lower left")
    axes[1].set_ylabel("mean return after one adaptation")
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlabel("iterations T of gradient ascent")
        axis.grid(alpha=0.3)
    figure.suptitle("Convergence on 20 high-variance maps, exact gradients")
    return save_figure(figure, "frozen_lake_convergence.png")
