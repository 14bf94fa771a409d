"""
What matters in BO-MRL, one setting at a time, by the runs and the protocol of :mod:`benchmarks.locomotion`.

    python -m benchmarks.ablations run --env HalfCheetahVel --seeds 0 1 2 --timesteps 2e6
    python -m benchmarks.ablations run --env Navigation2D --only reg_coef --seeds 0 --timesteps 1e6
    python -m benchmarks.ablations table
    python -m benchmarks.ablations figure

``benchmarks/results/ablations/<env>/<setting>=<value>/seed_<seed>.json`` are files like those of the comparison, with
what was changed under ``overrides``. A run that is stopped goes on when it is started again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.locomotion.methods import settings_of
from benchmarks.locomotion.report import estimate, final_scores, group_runs, seeds
from benchmarks.locomotion.runs import PROTOCOL, Place, Protocol, run
from benchmarks.provenance import FIGURES, RESULTS, commit, write_text
from sb3_bomrl.core.hypergradient import HYPERGRADIENTS
from sb3_bomrl.plots import save_figure

METHOD = "bomrl-alg1"
ENVS = ("HalfCheetahVel", "Navigation2D")
VALUES: dict[str, tuple[Any, ...]] = {
    "n_inner_steps": (1, 5, 20, 50, 100),
    "hypergradient": HYPERGRADIENTS,
    "reg_coef": (0.01, 0.03, 0.1, 0.3, 1.0),
    "n_episodes": (1, 5, 10, 20, 40),
}
"""Settings and their values; ``n_episodes`` is support episodes per task, in training and at meta-test."""

TITLES = {
    "n_inner_steps": "inner steps",
    "hypergradient": "hypergradient",
    "reg_coef": "λ",
    "n_episodes": "support episodes per task",
}


class Variant(NamedTuple):
    """
    One run with one setting changed.

    :param label: ``<setting>=<value>``
    :param overrides: settings of the method
    :param protocol: how to score
    """

    label: str
    overrides: dict[str, Any]
    protocol: Protocol


def variants(setting: str, env: str, protocol: Protocol = PROTOCOL) -> Iterator[Variant]:
    """
    :param setting: a key of :data:`VALUES`
    :param env: a task family
    :param protocol: how to score
    :return: a variant per value
    """
    for value in VALUES[setting]:
        label = f"{setting}={value}"
        if setting == "n_episodes":  # an environment plays one episode per phase: there are as many as episodes
            n_envs = value * settings_of(METHOD, env)["meta_batch_size"]
            yield Variant(label, {"n_envs": n_envs}, protocol._replace(n_episodes=value))
        else:
            yield Variant(label, {setting: value}, protocol)


def figure(results: Path, path: Path, kind: str = "stochastic") -> Path:
    """
    Return before and after one and three adaptations against every setting, a row of panels per family.

    :param results: folder of the results
    :param path: PNG to write
    :param kind: ``"deterministic"`` or ``"stochastic"``
    :return: the PNG
    :raises ValueError: if there is nothing to draw
    """
    groups = group_runs(results)
    families = sorted({(env, timesteps) for env, _, timesteps in groups})
    if not families:
        raise ValueError(f"results must have a finished run, found none in {results}")
    drawing = Figure(figsize=(4.5 * len(VALUES), 3.8 * len(families)), layout="constrained")
    axes = drawing.subplots(len(families), len(VALUES), squeeze=False)
    for line, (env, timesteps) in zip(axes, families, strict=True):
        for ax, setting in zip(line, VALUES, strict=True):
            runs = {value: groups.get((env, f"{setting}={value}", timesteps), []) for value in VALUES[setting]}
            if not any(runs.values()):  # was not run on this family
                ax.set_axis_off()
                continue
            _draw(ax, {str(value): found for value, found in runs.items() if found}, kind)
            ax.set_title(f"{env}, {timesteps:,} steps", fontsize=9)
            ax.set_xlabel(TITLES[setting])
            ax.set_ylabel(f"return, {kind} policy")
    save_figure(drawing, path)
    return path


def _draw(ax: Axes, runs: dict[str, list[dict[str, Any]]], kind: str) -> None:
    """Interquartile means with their intervals; the ticks say how many seeds there are."""
    scores = {value: final_scores(found, kind) for value, found in runs.items()}
    for k, colour in ((0, "#8a8a8a"), (1, "#1f5fa8"), (3, "#d1495b")):
        shown = {value: estimate(s[:, k]) for value, s in scores.items() if k < s.shape[1]}
        if not shown:
            continue
        value, low, high = np.array(list(shown.values())).T
        places = [list(scores).index(name) for name in shown]
        label = "before adaptation" if k == 0 else f"after {k} adaptation{'s' if k > 1 else ''}"
        ax.errorbar(places, value, [value - low, high - value], color=colour, marker="o", capsize=3, label=label)
    ax.set_xticks(range(len(scores)), [f"{name}\n({seeds(len(s))})" for name, s in scores.items()], fontsize=7)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=7)


def table(results: Path) -> str:
    """
    :param results: folder of the results
    :return: a row per run that is finished, with what explains its score, in Markdown
    """
    lines = [
        "| env | env steps | changed | seeds | 0 | 1 | 3 adaptations | CG residual | negative curvature | inner KL |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (env, label, timesteps), runs in sorted(group_runs(results).items(), key=lambda item: _order(item[0])):
        scores = final_scores(runs, "stochastic")
        cells = [f"{estimate(scores[:, min(k, scores.shape[1] - 1)]).value:.1f}" for k in (0, 1, 3)]
        names = ("hypergradient/cg_residual", "hypergradient/negative_curvature_count", "inner/kl")
        for name in names:
            values = [run["rows"][-1]["causes"][name] for run in runs if name in run["rows"][-1]["causes"]]
            cells.append(f"{np.mean(values):.3g}" if values else "–")
        lines.append(f"| {env} | {timesteps:,} | {label} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _order(key: tuple[str, str, int]) -> tuple[str, int, int]:
    """Families by name, then settings and values as they are listed."""
    labels = [f"{setting}={value}" for setting, values in VALUES.items() for value in values]
    return key[0], key[2], labels.index(key[1])


def parser() -> argparse.ArgumentParser:
    """
    :return: the parser
    """
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="train what is missing")
    runs.add_argument("--env", choices=ENVS, required=True)
    runs.add_argument("--only", choices=tuple(VALUES), nargs="+", default=list(VALUES))
    runs.add_argument("--seeds", type=int, nargs="+", default=[0])
    runs.add_argument("--timesteps", type=float, required=True, help="environment steps of training")
    runs.add_argument("--threads", type=int, default=1, help="of torch and of the physics")
    runs.add_argument("--checkpoints", type=Path, default=Path("runs") / "ablations")
    commands.add_parser("table", help="what the results say, in Markdown")
    draws = commands.add_parser("figure", help="draw it, and write the table, into the documentation's folder")
    draws.add_argument("--output", type=Path, default=FIGURES)
    for name in ("run", "table", "figure"):
        commands.choices[name].add_argument("--results", type=Path, default=RESULTS / "ablations")
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command == "table":
        print(table(args.results))
    elif args.command == "figure":
        write_text(args.output / "ablations.md", table(args.results))
        for kind in ("deterministic", "stochastic"):
            print(figure(args.results, args.output / f"ablations_{kind}.png", kind))
    else:
        commit()
        th.set_num_threads(args.threads)
        for seed in args.seeds:
            for setting in args.only:
                command = (
                    f"python -m benchmarks.ablations run --env {args.env} --only {setting} --seeds {seed} "
                    f"--timesteps {args.timesteps:.0f} --threads {args.threads}"
                )
                for label, overrides, protocol in variants(setting, args.env):
                    place = Place(args.results, args.checkpoints, label)
                    run(METHOD, args.env, seed, int(args.timesteps), command, place, protocol, overrides, args.threads)


if __name__ == "__main__":
    main()
