"""Figures from the committed results: nothing is rescaled, shifted or smoothed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.frozen_lake.results import FIGURES, load

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]

TITLES = {"alg1": "Alg(1), KL(meta‖task)", "alg2": "Alg(2), KL(task‖meta)", "alg3": "Alg(3), parameters"}
FAMILY_TITLES = {"high_variance": "high task variance (holes)", "low_variance": "low task variance (penalties)"}
BOUND_STYLES = {"B1": ("C4", "-."), "B2": ("C5", ":"), "B3": ("C2", "--"), "B4": ("C3", "-")}
BARS = {
    "gap_no_adaptation": ("no\nadaptation", "0.7"),
    "gap_one_adaptation": ("one BO-MRL\nadaptation", "C0"),
    "gap_policy_gradient_step": ("policy-gradient\nstep (best of 6)", "C1"),
}
GAP_FLOOR = 1e-4
"""Gaps below this are drawn at it on logarithmic axes."""


def adaptation_figure(method: str, name: str) -> Path:
    """
    Return over 0 to 4 adaptations, seen and held-out maps, and gaps with their bounds; one row per family.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param name: ending of the file's name
    """
    rows = load("main")["rows"]
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained", width_ratios=(1, 1, 1.15))
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        for axis, maps in zip(line[:2], ("seen", "held-out"), strict=True):
            _draw_curves(axis, [row for row in rows if row["family"] == family and row["maps"] == maps], method)
            axis.set_title(f"{FAMILY_TITLES[family]}: {maps} maps", fontsize=10)
        _draw_gaps(line[2], _select(rows, family=family, maps="held-out", method=method))
    axes[0, 1].legend(fontsize=8, loc="lower right")
    n_seeds = len({row["seed"] for row in rows})
    figure.suptitle(
        f"Frozen Lake, exact, {TITLES[method]}: mean of 20 maps, then mean and standard deviation of {n_seeds} seeds"
    )
    return _save(figure, f"frozen_lake_{name}.png")


def _draw_curves(axis: Axes, rows: list[Row], method: str) -> None:
    labels = {
        method: (f"BO-MRL, λ = {_select(rows, method=method)[0]['setting']:g}", "C0", "o"),
        "maml": (f"MAML, step {_select(rows, method='maml')[0]['setting']:g}", "C1", "s"),
        f"random_{method}": ("random initialisation, same λ", "C2", "^"),
    }
    for name, (label, colour, marker) in labels.items():
        returns = np.array([row["returns"] for row in _select(rows, method=name)])
        mean, spread, steps = returns.mean(0), returns.std(0, ddof=1), np.arange(returns.shape[1])
        axis.plot(steps, mean, color=colour, marker=marker, markersize=4, label=label)
        axis.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    for name, label, style in (("optimum", "optimum of each task", "k-"), ("shared", "best shared policy found", "k:")):
        returns = np.array([row["returns"] for row in _select(rows, method=name)]).mean(0)
        axis.plot(np.arange(len(returns)), returns, style, linewidth=1, label=label)
    axis.set_xlabel("adaptations")
    axis.set_ylabel("return J")
    axis.set_xticks(range(len(returns)))
    axis.grid(alpha=0.3)


def _draw_gaps(axis: Axes, rows: list[Row]) -> None:
    """Bars for the gaps; a bound is a line only where it is one, and only its legend where it is far above."""
    gaps = {key: np.array([row[key] for row in rows]) for key in BARS}
    bounds = {bound: np.mean([row[bound] for row in rows]) for bound in BOUND_STYLES if rows[0][bound] is not None}
    share = np.mean([row["B4_holds_share"] for row in rows])
    if share < 1:
        del bounds["B4"]
    top = 1.1 * max(np.max(list(gaps.values())), bounds["B3"], bounds.get("B1", 0.0))
    for place, (key, values) in enumerate(gaps.items()):
        axis.bar(place, values.mean(), 0.6, color=BARS[key][1])
        axis.scatter(np.full(len(values), place), values, s=10, color="k", zorder=3)
        axis.text(place + 0.33, values.mean() + 0.01 * top, f"{values.mean():.2g}", fontsize=9)
    for bound, value in bounds.items():
        colour, style = BOUND_STYLES[bound]
        above = ", above the axis" if value > top else ""
        axis.plot([-0.5, 2.7], [value, value], style, color=colour, label=f"{bound} = {value:.2g}{above}")
    if share < 1:
        axis.plot([], [], " ", label=f"B4 holds on {100 * share:.0f} %: no bound")
    axis.set_ylim(0, top)
    axis.set_xlim(-0.5, 2.7)
    axis.set_xticks(range(len(BARS)), [label for label, _ in BARS.values()], fontsize=9)
    axis.set_ylabel("optimality gap J* − J")
    axis.set_title("held-out maps: gap (dots: seeds) and bounds", fontsize=10)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=2)
    axis.grid(alpha=0.3, axis="y")


def lambda_figure() -> Path:
    """Gap and bounds against lambda, one panel per algorithm."""
    rows = load("lambda")["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained", sharey=True)
    for axis, method in zip(axes, TITLES, strict=True):
        chosen = _select(rows, method=method)
        _draw_against([row["reg_coef"] for row in chosen], chosen, axis)
        axis.set_xscale("log")
        axis.set_xlabel("λ")
        axis.set_title(TITLES[method], fontsize=10)
    axes[0].set_ylabel("optimality gap after one adaptation")
    axes[1].legend(fontsize=8, loc="upper left")
    figure.suptitle("Gap and bounds against λ: high task variance, the 20 training maps, meta-trained at every λ")
    return _save(figure, "frozen_lake_lambda.png")


def variance_figure() -> Path:
    """Gap and bounds against the task variance, one column per algorithm, one row per family."""
    rows = load("variance")["rows"]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained", sharey="row")
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        for axis, method in zip(line, TITLES, strict=True):
            chosen = sorted(_select(rows, family=family, method=method), key=lambda row: row["smallest_task_variance"])
            _draw_against([row["smallest_task_variance"] for row in chosen], chosen, axis, style="none")
            axis.set_title(f"{TITLES[method]}, λ = {chosen[0]['reg_coef']:g}\n{FAMILY_TITLES[family]}", fontsize=10)
            axis.set_xlabel("smallest task variance of the maps (nats)")
        line[0].set_ylabel("optimality gap after one adaptation")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncol=len(labels))
    figure.suptitle("Gap and bounds against task variance: 1, 2, 3, 5, 10 and 20 different maps, three seeds each")
    return _save(figure, "frozen_lake_variance.png")


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
    rows = load("convergence")["rows"]
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
    return _save(figure, "frozen_lake_convergence.png")


def return_table() -> str:
    """Returns on held-out maps as a Markdown table: mean of the seeds, and standard deviation after one adaptation."""
    rows = [row for row in load("main")["rows"] if row["maps"] == "held-out"]
    names = {**TITLES, "maml": "MAML", **{f"random_{method}": f"random, {TITLES[method]}" for method in TITLES}}
    names["shared"] = "best shared policy found"
    lines = ["| family | method | λ or step | 0 | 1 | 2 | 4 |", "|---|---|---|---|---|---|---|"]
    for family in FAMILY_TITLES:
        for method, name in names.items():
            chosen = _select(rows, family=family, method=method)
            returns = np.array([row["returns"] for row in chosen])
            mean, spread = returns.mean(0), returns.std(0, ddof=1)
            cells = [f"{mean[0]:.2f}", f"{mean[1]:.2f} ± {spread[1]:.2f}", f"{mean[2]:.2f}", f"{mean[4]:.2f}"]
            setting = f"{chosen[0]['setting']:g}" if "setting" in chosen[0] else "–"
            lines.append(f"| {family.replace('_', ' ')} | {name} | {setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sampled_figure(maps: str) -> Path:
    """
    Sampled and exact return over 0 to 4 adaptations, one column per algorithm, one row per family.

    :param maps: ``"seen"`` or ``"held-out"``
    """
    sampled, exact = _sampled_and_exact(maps)
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.6), layout="constrained", sharey="row", sharex=True)
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        for axis, method in zip(line, TITLES, strict=True):
            for rows, kind, style in ((sampled, "sampled", "-"), (exact, "exact", "--")):
                for name, label, colour in (
                    (method, "BO-MRL", "C0"),
                    (f"random_{method}", "random initialisation", "C2"),
                ):
                    returns = np.array([row["returns"] for row in _select(rows, family=family, method=name)])
                    steps = np.arange(returns.shape[1])
                    axis.plot(steps, returns.mean(0), style, color=colour, label=f"{label}, {kind}")
                    axis.fill_between(steps, returns.min(0), returns.max(0), color=colour, alpha=0.15, linewidth=0)
            optimum = _select(exact, family=family, method="optimum")[0]["returns"]
            axis.plot(np.arange(len(optimum)), optimum, "k:", linewidth=1, label="optimum of each task")
            reg_coef = _select(sampled, family=family, method=method)[0]["setting"]
            axis.set_title(f"{TITLES[method]}, λ = {reg_coef:g}\n{FAMILY_TITLES[family]}", fontsize=10)
            axis.set_xticks(range(len(optimum)))
            axis.grid(alpha=0.3)
        line[0].set_ylabel("return J")
    for axis in axes[1]:
        axis.set_xlabel("adaptations")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncol=len(labels))
    seeds = sorted({row["seed"] for row in sampled})
    figure.suptitle(
        f"Frozen Lake, sampled against exact, {maps} maps: mean of 20 maps, then mean (line) and range (band) "
        f"of {len(seeds)} seeds"
    )
    return _save(figure, f"frozen_lake_sampled_{maps.replace('-', '_')}.png")


def _sampled_and_exact(maps: str) -> tuple[list[Row], list[Row]]:
    """Rows of the sampled experiment, and those of the exact one with the same seeds."""
    sampled = _select(load("sampled")["rows"], maps=maps)
    seeds = {row["seed"] for row in sampled}
    return sampled, [row for row in _select(load("main")["rows"], maps=maps) if row["seed"] in seeds]


def sampled_table() -> str:
    """Sampled returns, and in brackets the exact ones of the same seeds, as a Markdown table."""
    lines = ["| family | maps | method | λ | 0 | 1 | 2 | 4 |", "|---|---|---|---|---|---|---|---|"]
    names = {**TITLES, **{f"random_{method}": f"random, {TITLES[method]}" for method in TITLES}}
    for family in FAMILY_TITLES:
        for maps in ("seen", "held-out"):
            sampled, exact = _sampled_and_exact(maps)
            for method, name in names.items():
                chosen = _select(sampled, family=family, method=method)
                pair = [
                    np.array([row["returns"] for row in rows]).mean(0)
                    for rows in (chosen, _select(exact, family=family, method=method))
                ]
                cells = [f"{pair[0][step]:.2f} ({pair[1][step]:.2f})" for step in (0, 1, 2, 4)]
                row = (family.replace("_", " "), maps, name, f"{chosen[0]['setting']:g}", *cells)
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _select(rows: list[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _save(figure: Figure, name: str) -> Path:
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / name
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
