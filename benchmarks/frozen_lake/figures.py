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


def adaptation_figure(method: str, number: int) -> Path:
    """Draw returns over 0 to 4 exact adaptations, and gaps with their bounds, on seen and held-out maps."""
    rows = load("main")
    figure, axes = plt.subplots(2, 4, figsize=(19, 9), layout="constrained", width_ratios=(1, 1, 1.2, 1.2))
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        line[1].sharey(line[0])
        for maps, curves, bars in zip(MAPS, line[:2], line[2:], strict=True):
            chosen = select(rows, family=family, maps=maps)
            _draw_curves(curves, chosen, chosen, method)
            curves.set_title(f"{FAMILY_TITLES[family]}: {maps} maps", fontsize=10)
            _draw_gaps(bars, select(chosen, method=method))
            bars.set_title(f"{maps} maps: gap (dots: seeds) and bounds on it", fontsize=10)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    n_seeds = len({row["seed"] for row in rows})
    over = f"mean and standard deviation of {n_seeds} seeds"
    figure.suptitle(f"Frozen Lake, exact, {TITLES[method]}: mean of 20 maps; {over}")
    return save_figure(figure, f"frozen_lake_figure{number}.png")


def sampled_figure() -> Path:
    """Draw returns over 0 to 4 sampled adaptations on held-out maps, and the exact BO-MRL of the same seeds."""
    rows = load("sampled")
    seeds = {row["seed"] for row in rows}
    exact = [row for row in load("main") if row["seed"] in seeds]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained", sharey="row")
    for line, family in zip(axes, FAMILY_TITLES, strict=True):
        for axis, method in zip(line, TITLES, strict=True):
            chosen, same = (select(part, family=family, maps="held-out") for part in (rows, exact))
            _draw_curves(axis, chosen, same, method)
            axis.set_title(f"{TITLES[method]}\n{FAMILY_TITLES[family]}", fontsize=10)
            axis.legend(fontsize=7, loc="lower right")
    over = f"mean and standard deviation of {len(seeds)} seeds"
    figure.suptitle(f"Frozen Lake, 500 episodes per adaptation: mean of 20 held-out maps; {over}")
    return save_figure(figure, "frozen_lake_sampled.png")


def _draw_curves(axis: Axes, rows: list[Row], exact: list[Row], method: str) -> None:
    setting = {name: select(rows, method=name)[0]["setting"] for name in (method, "maml")}
    lines = [
        (rows, method, f"BO-MRL, λ = {setting[method]:g}", "C0", "o-"),
        (rows, "maml", f"MAML, step {setting['maml']:g}", "C1", "s-"),
        (rows, f"random_{method}", "random initialisation, same λ", "C2", "^-"),
    ]
    if exact is not rows:
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
    """Draw bars for the gaps; over that of the adaptation the bounds that hold on every task."""
    bars = [(label, colour, [row[key] for row in rows]) for key, (label, colour) in BARS.items()]
    bounds = _bounds(rows)
    top = 1.1 * max([max(values) for _, _, values in bars] + [bounds[name] for name in ("B1", "B3") if name in bounds])
    for place, (_, colour, values) in enumerate(bars):
        axis.bar(place, np.mean(values), 0.6, color=colour)
        axis.scatter(np.full(len(values), place), values, s=10, color="k", zorder=3)
    for name, value in bounds.items():
        colour, style = BOUND_STYLES[name]
        label = f"{name} = {value:.2g}{', above the axis' if value > top else ''}"
        axis.plot([0.55, 1.45], [value, value], style, color=colour, linewidth=2, label=label)
    if "B4" not in bounds:
        share = 100 * np.mean([row["B4_holds_share"] for row in rows])
        axis.plot([], [], " ", label=f"B4 no bound: holds on {share:.0f} %")
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
