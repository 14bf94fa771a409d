"""Table and figure of ``benchmarks.throughput``, from its JSON alone."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.throughput_models import PHASES
from benchmarks.throughput_scaling import AXES, slope
from sb3_bomrl.plots import save_figure

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SERIES = {
    "vec_env": ("VecEnv, random actions", "#8a8a8a"),
    "rollouts": ("rollouts", "#1f5fa8"),
    "meta_iteration/no_line_search": ("meta-iteration, no line search", "#edae49"),
    "meta_iteration/default": ("meta-iteration, default", "#d1495b"),
}
COLOURS = {"rollout": "#1f5fa8", "adapt": "#2e8b57", "hypergradient": "#edae49", "outer": "#d1495b"}


def draw(results: dict[str, Any], path: Path) -> Path:
    """Ratios to raw physics, time per phase, growth of the learning phase."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    _ratios(axes[0], results["ratios"])
    _phases(axes[1], [row for row in results["rows"] if row["part"] == "sizes" and "phases" in row])
    _scaling(axes[2], [row for row in results["rows"] if row["part"] == "scaling"])
    save_figure(figure, path)
    plt.close(figure)
    return path


def _ratios(ax: Axes, ratios: list[dict[str, Any]]) -> None:
    rows = [row for row in ratios if row["part"] == "sizes"]
    groups = sorted({(row["env"], row["n_tasks"]) for row in rows}, key=lambda g: (g[0] == "Ant", g[1]))
    for i, (what, (label, colour)) in enumerate(SERIES.items()):
        heights = {(r["env"], r["n_tasks"]): r["of_raw"] for r in rows if r["what"] == what}
        present = [(j, heights[group]) for j, group in enumerate(groups) if group in heights]
        ax.bar([j + 0.2 * (i - 1.5) for j, _ in present], [h for _, h in present], 0.2, label=label, color=colour)
    ax.axhline(1.0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(groups)), [f"{env}\n{n} × 20" for env, n in groups], fontsize=6)
    ax.set_ylabel("env steps per second / raw mj_step")
    ax.set_ylim(0, 1.35)
    ax.legend(frameon=False, fontsize=7, ncols=2, loc="upper center")


def _phases(ax: Axes, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: (row["env"] == "Ant", row["n_tasks"], row["what"]))
    for i, row in enumerate(rows):
        left = 0.0
        for phase in PHASES:
            share = row["phases"][phase] / row["seconds"]
            ax.barh(i, share, left=left, color=COLOURS[phase], label=phase if i == 0 else None)
            left += share
    names = [f"{row['env']} {row['n_tasks']} × 20\n{row['what'].split('/')[1]}" for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=6)
    ax.set_xlabel("share of a meta-iteration's time")
    ax.set_xlim(0, 1)
    if rows:
        ax.legend(frameon=False, fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _scaling(ax: Axes, rows: list[dict[str, Any]]) -> None:
    for axis, colour in zip(AXES, COLOURS.values(), strict=True):
        points = sorted((row["value"], row["learning_seconds"]) for row in rows if row["axis"] == axis)
        if points:
            values, seconds = zip(*points, strict=True)
            label = f"{axis}: exponent {slope(values, seconds):.2f}"
            ax.plot([v / values[0] for v in values], seconds, marker="o", markersize=3, color=colour, label=label)
    low, high = ax.get_ylim() if rows else (0.1, 10.0)
    ax.plot(
        [1, 64], [max(low, 0.05), 64 * max(low, 0.05)], color="black", linewidth=0.8, linestyle="--", label="linear"
    )
    ax.set(xscale="log", yscale="log", xlabel="size relative to the smallest", ylabel="learning phase, s")
    ax.set_ylim(max(low, 0.02), max(high, 1.0) * 2)
    ax.legend(frameon=False, fontsize=7)


def table(results: dict[str, Any]) -> str:
    """Ratios and memory in Markdown."""
    lines = [
        "| part | environment | tasks | what | of raw mj_step | default is faster by |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["ratios"]:
        cells = (
            row["part"],
            row["env"],
            row["n_tasks"],
            row["what"],
            row["of_raw"],
            row.get("default_is_faster_by", ""),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    for row in results["rows"]:
        if row["part"] == "memory":
            lines.append(f"\n{row['env']}, {row['n_tasks']} tasks: peak {row['peak_mb']} MiB")
        if row["part"] == "scaling" and row["value"] == AXES[row["axis"]][-1]:
            points = [r for r in results["rows"] if r["part"] == "scaling" and r["axis"] == row["axis"]]
            points.sort(key=lambda r: r["value"])
            growth = slope([r["value"] for r in points], [r["learning_seconds"] for r in points])
            lines.append(f"\n{row['axis']}: the learning phase grows with exponent {growth:.2f}")
    return "\n".join(lines)
