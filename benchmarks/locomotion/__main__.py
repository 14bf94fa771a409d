"""Command line of :mod:`benchmarks.locomotion`."""

import argparse
from pathlib import Path

import torch as th

import benchmarks.locomotion
from benchmarks.locomotion import figures
from benchmarks.locomotion.comparison import difference_table, improvement_table, level_table, summary_table
from benchmarks.locomotion.methods import FAMILIES, METHODS, TRAINED
from benchmarks.locomotion.paths import FAMILY, draw_paths, paths_path, play
from benchmarks.locomotion.policies import prune
from benchmarks.locomotion.report import group_runs, markdown_table, run_speed
from benchmarks.locomotion.runs import CHECKPOINTS, POLICIES, Place, run
from benchmarks.locomotion.speed import measure
from benchmarks.provenance import FIGURES, RESULTS, commit, write_text

TABLES = {"table": markdown_table, "differences": difference_table, "levels": level_table, "summary": summary_table}
"""Command -> what the results say, in Markdown."""


def parser() -> argparse.ArgumentParser:
    """
    :return: the parser
    """
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.locomotion",
        description=benchmarks.locomotion.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="one method, one family, one seed")
    train.add_argument("--method", choices=tuple(METHODS), required=True)
    train.add_argument("--seed", type=int, default=0)
    every = commands.add_parser("all", help="what is missing, one run after the other")
    every.add_argument("--methods", choices=tuple(METHODS), nargs="+", default=list(METHODS))
    every.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for command in (train, every):
        command.add_argument("--env", choices=tuple(FAMILIES), required=True)
        command.add_argument("--timesteps", type=float, required=True, help="environment steps of training")
        command.add_argument("--threads", type=int, default=1, help="of torch and of the physics")
        command.add_argument("--results", type=Path, default=RESULTS / "locomotion")
        command.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
        command.add_argument("--keep-policy", action="store_true", help="save the policy into benchmarks/policies")
    speed = commands.add_parser("speed", help="seconds of training per environment step, methods taking turns")
    speed.add_argument("--env", choices=tuple(FAMILIES), required=True)
    speed.add_argument("--methods", choices=TRAINED, nargs="+", default=list(TRAINED))
    speed.add_argument("--threads", type=int, default=1, help="of torch and of the physics")
    commands.add_parser("table", help="what the results say, in Markdown")
    commands.add_parser("improvement", help="how probably one method beats another, in Markdown")
    commands.add_parser("differences", help="by how much BO-MRL is above the other methods, in Markdown")
    commands.add_parser("levels", help="how far methods had come by half of the steps, in Markdown")
    commands.add_parser("summary", help="the best of BO-MRL and of the others, in Markdown")
    commands.add_parser("prune", help="of the kept policies leave those of the best seeds")
    commands.add_parser("paths", help=f"play the kept policies of {FAMILY}, and keep their paths among the results")
    draws = commands.add_parser("figures", help="draw them, and write the tables, into the documentation's folder")
    for name in ("speed", "table", "improvement", "differences", "levels", "summary", "prune", "paths", "figures"):
        commands.choices[name].add_argument("--results", type=Path, default=RESULTS / "locomotion")
    draws.add_argument("--output", type=Path, default=FIGURES)
    return result


def draw(results: Path, output: Path) -> None:
    """Every figure and table, of both kinds of policy."""
    groups = group_runs(results).values()
    has_speed = any(run_speed(results, runs[0]) is not None for runs in groups)
    for kind in ("deterministic", "stochastic"):
        print(figures.figure_2(results, output / f"locomotion_figure2_{kind}.png", kind))
        for against in ("env_steps", "seconds") if has_speed else ("env_steps",):
            print(figures.figure_5(results, output / f"locomotion_figure5_{against}_{kind}.png", against, kind))
        print(figures.profiles(results, output / f"locomotion_profiles_{kind}.png", kind))
    tables = {name: to_text(results) for name, to_text in TABLES.items()}
    for kind in ("deterministic", "stochastic"):
        tables[f"improvement_{kind}"] = improvement_table(results, kind)
    for name, text in tables.items():
        print(write_text(output / f"locomotion_{name}.md", text))
    if paths_path(results).exists():
        print(draw_paths(results, output / "locomotion_paths.png"))


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command in TABLES:
        print(TABLES[args.command](args.results))
        return
    if args.command == "improvement":
        print(*(improvement_table(args.results, kind) for kind in ("deterministic", "stochastic")), sep="\n\n")
        return
    if args.command == "prune":
        print(*prune(results=args.results), sep="\n")
        return
    if args.command == "figures":
        draw(args.results, args.output)
        return
    commit()
    th.set_num_threads(getattr(args, "threads", 1))
    if args.command == "paths":
        print(play(args.results, "python -m benchmarks.locomotion paths"))
        return
    if args.command == "speed":
        command = f"python -m benchmarks.locomotion speed --env {args.env} --methods {' '.join(args.methods)}"
        command += f" --threads {args.threads}"
        print(measure(args.methods, args.env, args.results, command, n_threads=args.threads))
        return
    place = Place(args.results, args.checkpoints, policies=POLICIES if args.keep_policy else None)
    methods, seeds = ([args.method], [args.seed]) if args.command == "train" else (args.methods, args.seeds)
    for seed in seeds:
        for method in methods:
            command = (
                f"python -m benchmarks.locomotion train --method {method} --env {args.env} --seed {seed} "
                f"--timesteps {args.timesteps:.0f} --threads {args.threads}"
            )
            run(method, args.env, seed, int(args.timesteps), command, place, n_threads=args.threads)


if __name__ == "__main__":
    main()
