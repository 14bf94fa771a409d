"""
Draw the figures of a suite into the documentation's folder.

    python -m benchmarks.figures comparison

Of a suite that compares methods there is a figure per family: returns against adaptations (Figure 2 of the paper), and
against environment steps and seconds of training (Figure 5). Of a suite that changes one setting at a time there is one
figure. Nothing is rescaled, shifted or smoothed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.methods import METHODS, short_name
from benchmarks.provenance import FIGURES, RESULTS
from benchmarks.records import csv_path, read_provenance
from benchmarks.report import speeds
from benchmarks.statistics import Array, Group, estimate, in_order, load_groups
from benchmarks.suites import suite_names
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
ABLATED_AFTER = {0: ("before adaptation", "#8a8a8a"), 1: ("after 1 adaptation", "#1f5fa8"), 3: ("after 3", "#d1495b")}


def family_figure(groups: Sequence[Group], seconds: dict[tuple[str, str], float], path: Path) -> Path:
    """Draw one family: returns against adaptations, environment steps and seconds of training."""
    groups = in_order(groups)
    figure = Figure(figsize=(10.5, 6.2), layout="constrained")
    axes = figure.subplots(2, 2)
    for ax, policy in zip(axes[0], ("stochastic", "deterministic"), strict=True):
        _against_adaptations(ax, groups, policy)
    _while_training(axes[1, 0], groups, {group.label: 1.0 for group in groups}, "environment steps")
    timed = {group.label: seconds.get((group.env, group.label), 0.0) for group in groups}
    _while_training(axes[1, 1], groups, timed, "seconds of training, one core")
    lines = {line.get_label(): line for ax in axes.flat for line in ax.lines}
    names = [group.label for group in groups if group.label in lines]
    figure.legend([lines[name] for name in names], names, loc="outside right center", frameon=False)
    counts = sorted({len(group.seeds) for group in groups})
    title = f"{short_name(groups[0].env)}: mean of {' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"
    figure.suptitle(title + ("" if counts == [1] else ", 95 % Student interval"), fontsize=11)
    save_figure(figure, path)
    return path


def _against_adaptations(ax: Axes, groups: Sequence[Group], policy: str) -> None:
    for group in groups:
        scores = group.final[policy]
        if scores.shape[1] == 1:  # does not adapt
            ax.axhline(scores.mean(), color=COLOURS[group.method], linestyle="--", label=group.label)
        else:
            _band(ax, np.arange(scores.shape[1]), scores, group)
    ax.set_xticks(np.arange(max(group.final[policy].shape[1] for group in groups)))
    ax.set(xlabel="adaptations", ylabel=f"return, {policy} policy")
    firsts = [group.after(policy, 1).mean() for group in groups]
    _limit(ax, [*firsts, np.median([group.after(policy, 0).mean() for group in groups])])


def _while_training(ax: Axes, groups: Sequence[Group], scale: dict[str, float], xlabel: str) -> None:
    """After one adaptation, stochastic policy; what was not trained is a level."""
    for group in groups:
        scores = group.curves["stochastic"]
        if scores.shape[1] == 1:
            ax.axhline(scores.mean(), color=COLOURS[group.method], linestyle=":", label=group.label)
        elif scale[group.label]:
            _band(ax, group.curve_env_steps * scale[group.label], scores, group)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set(xlabel=xlabel, ylabel="return after one adaptation")
    _limit(ax, [group.curves["stochastic"][:, -1].mean() for group in groups])


def _band(ax: Axes, x: Array, scores: Array, group: Group) -> None:
    """Mean of seeds, and its interval where there is one."""
    found = [estimate(column) for column in scores.T]
    mean = np.array([value.mean for value in found])
    colour = COLOURS[group.method]
    ax.plot(x, mean, color=colour, marker=MARKERS[group.method], markersize=4, label=group.label)
    if len(scores) > 1:
        half = np.array([value.half_width for value in found])
        ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)


def _limit(ax: Axes, values: Sequence[float]) -> None:
    """Keep the axis to a range around some values, and say where a line leaves it."""
    ax.grid(alpha=0.3)
    if not ax.lines:
        return
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    lowest = np.min(values) - np.ptp(values) / 2
    margin = 0.05 * (drawn.max() - max(lowest, drawn.min()))
    ax.set_ylim(max(lowest, drawn.min()) - margin, drawn.max() + margin)
    if drawn.min() < lowest:
        box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.text(0.02, 0.03, f"↓ lines go on to {drawn.min():.0f}", fontsize=8, transform=ax.transAxes, bbox=box)


def ablation_figure(groups: Sequence[Group], path: Path) -> Path:
    """Draw the returns of the stochastic policy against every setting, a row of panels per family."""
    panels: dict[str, dict[str, dict[str, Group]]] = {}
    for group in groups:
        setting, value = group.label.split(" ")[1].split("=")
        panels.setdefault(group.env, {}).setdefault(setting, {})[value] = group
    settings = list(dict.fromkeys(setting for found in panels.values() for setting in found))
    figure = Figure(figsize=(3.3 * len(settings), 2.9 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), len(settings), squeeze=False)
    for line, (env, found) in zip(axes, panels.items(), strict=True):
        for ax, setting in zip(line, settings, strict=True):
            _draw_setting(ax, found.get(setting, {}))
            ax.set_xlabel(setting, fontsize=9)
        n_seeds = max(len(group.seeds) for variants in found.values() for group in variants.values())
        line[0].set_ylabel(f"{short_name(env)}\nreturn, {n_seeds} seed{'s' if n_seeds > 1 else ''}", fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=7)
    save_figure(figure, path)
    return path


def _draw_setting(ax: Axes, variants: dict[str, Group]) -> None:
    for k, (label, colour) in ABLATED_AFTER.items():
        found = [estimate(group.after("stochastic", k)) for group in variants.values()]
        mean, half = np.array([value.mean for value in found]), np.array([value.half_width for value in found])
        errors = half if np.isfinite(half).all() else None
        ax.errorbar(range(len(mean)), mean, errors, color=colour, marker="o", markersize=4, capsize=3, label=label)
    ax.set_xticks(range(len(variants)), [name.replace("_", "\n") for name in variants], fontsize=7)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.3)


def draw(suite: str, results: Path = RESULTS, output: Path = FIGURES) -> list[Path]:
    """Draw the figures of a suite."""
    path = csv_path(suite, results)
    groups = load_groups(path)
    if all(group.label == group.method for group in groups):
        seconds = speeds(read_provenance(path))
        return [
            family_figure([g for g in groups if g.env == env], seconds, output / f"{suite}_{short_name(env)}.png")
            for env in dict.fromkeys(group.env for group in groups)
        ]
    if any(group.label.count(" ") != 1 for group in groups):
        raise ValueError(f"suite must compare methods, or change one setting of one method at a time, got {suite!r}")
    return [ablation_figure(groups, output / f"{suite}.png")]


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, default=FIGURES)
    args = parser.parse_args()
    print(*draw(args.suite, args.results, args.output), sep="\n")


if __name__ == "__main__":
    main()
