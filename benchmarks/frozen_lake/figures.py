"""Figures 1, 3 and 4 from the committed results: nothing is rescaled, shifted or smoothed."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.frozen_lake.plotting import BOUND_STYLES, FAMILY_TITLES, TITLES, Row, save_figure, select
from benchmarks.frozen_lake.results import load

MAPS = ("seen", "held-out")
BARS = {
    "gap_no_adaptation": ("no\nadaptation", "0.7"),
    "gap_one_adaptation": ("one BO-MRL\nadaptation", "C0"),
    "gap_policy_gradient_step": ("policy-gradient\nstep (best of 6)", "C1"),
}
EXACT_BAR = ("exact BO-MRL\nadaptation", "C9")


def adaptation_figure(method: str, number: int, is_sampled: bool = False) -> Path:
    """
    Return over 0 to 4 adaptations, and gaps with their bounds, on seen and held-out maps; one row per family.

    :param method: ``"alg1"``, ``"alg2"`` or ``"alg3"``
    :param number: of the figure in the paper
    :param is_sampled: draw the sampled experiment, and the exact BO-MRL of the same seeds beside it
    """
    rows = load("sampled" if is_sampled else "main")["rows"]
    seeds = sorted({row["seed"] for row in rows})
    exact_rows = [row for row in load("main")["rows"] if row["seed"] in seeds]
    figure, axes = plt.subplots(2, 4, figsize=(19, 9), layout="constrained", width_ratios=(1, 1, 1.2, 1.2))
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        line[1].sharey(line[0])
        for maps, curves, bars in zip(MAPS, line[:2], line[2:], strict=True):
            chosen, exact = (select(part, family=family, maps=maps) for part in (rows, exact_rows))
            _draw_curves(curves, chosen, exact, method, is_sampled)
            curves.set_title(f"{FAMILY_TITLES[family]}: {maps} maps", fontsize=10)
            _draw_gaps(bars, select(chosen, method=method))
            bars.set_title(f"{maps} maps: gap (dots: seeds) and bounds on it", fontsize=10)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    kind = "500 episodes per adaptation" if is_sampled else "exact"
    over = f"mean and standard deviation of {len(seeds)} seeds" if len(seeds) > 1 else "a single seed"
    figure.suptitle(f"Frozen Lake, {kind}, {TITLES[method]}: mean of 20 maps; {over}")
    return save_figure(figure, f"frozen_lake_figure{number}{'_sampled' if is_sampled else ''}.png")


def _draw_curves(axis: Axes, rows: list[Row], exact: list[Row], method: str, is_sampled: bool) -> None:
    setting = {name: select(rows, method=name)[0]["setting"] for name in (method, "maml")}
    lines = [
        (rows, method, f"BO-MRL, λ = {setting[method]:g}", "C0", "o-"),
        (rows, "maml", f"MAML, step {setting['maml']:g}", "C1", "s-"),
        (rows, f"random_{method}", "random initialisation, same λ", "C2", "^-"),
    ]
    if is_sampled:
        lines.append((exact, method, "BO-MRL, exact", "C9", "o--"))
    for part, name, label, colour, style in lines:
        returns = np.array([row["returns"] for row in select(part, method=name)])
        mean, steps = returns.mean(0), np.arange(returns.shape[1])
        axis.plot(steps, mean, style, color=colour, markersize=4, label=label)
        if len(returns) > 1:
            spread = returns.std(0, ddof=1)
            axis.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    for name, label, style in (("optimum", "optimum of each task", "k-"), ("shared", "best shared policy found", "k:")):
        returns = np.array([row["returns"] for row in select(exact, method=name)]).mean(0)
        axis.plot(np.arange(len(returns)), returns, style, linewidth=1, label=label)
    axis.set_xlabel("adaptations")
    axis.set_ylabel("return J")
    axis.set_xticks(range(len(returns)))
    axis.grid(alpha=0.3)


def _draw_gaps(axis: Axes, rows: list[Row]) -> None:
    """Bars for the gaps; over the bars of adaptations the bounds on them, where they are bounds on every task."""
    exact = [row["exact"] for row in rows if "exact" in row]
    bars = [(label, colour, [row[key] for row in rows]) for key, (label, colour) in BARS.items()]
    bounds = [(1, "", _bounds(rows))]
    if exact:
        bars.append((*EXACT_BAR, [row["gap_one_adaptation"] for row in exact]))
        bounds = [(1, " (samples)", _bounds(rows)), (3, " (exact)", _bounds(exact))]
    limits = [max(values) for _, _, values in bars] + [
        value for _, _, found in bounds for name, value in found.items() if name in ("B1", "B3")
    ]
    top = 1.1 * max(limits)
    for place, (_, colour, values) in enumerate(bars):
        axis.bar(place, np.mean(values), 0.6, color=colour)
        axis.scatter(np.full(len(values), place), values, s=10, color="k", zorder=3)
    for place, note, found in bounds:
        for name, value in found.items():
            colour, style = BOUND_STYLES[name]
            above = ", above the axis" if value > top else ""
            label = f"{name}{note} = {value:.2g}{above}"
            axis.plot([place - 0.45, place + 0.45], [value, value], style, color=colour, linewidth=2, label=label)
        shares = [row["B4_holds_share"] for row in (exact if note == " (exact)" else rows)]
        if "B4" not in found:
            axis.plot([], [], " ", label=f"B4{note} no bound: holds on {100 * np.mean(shares):.0f} %")
    axis.set_ylim(0, top)
    axis.set_xlim(-0.5, len(bars) - 0.5)
    axis.set_xticks(range(len(bars)), [f"{label}\n{np.mean(values):.3f}" for label, _, values in bars], fontsize=8)
    axis.set_ylabel("optimality gap J* − J")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=2)
    axis.grid(alpha=0.3, axis="y")


def _bounds(rows: list[Row]) -> dict[str, float]:
    """Mean over seeds of every bound that the rows have; B4 only where its condition holds on every task."""
    names = [name for name in BOUND_STYLES if all(row.get(name) is not None for row in rows)]
    if any(row["B4_holds_share"] < 1 for row in rows):
        names.remove("B4")
    return {name: float(np.mean([row[name] for row in rows])) for name in names}
