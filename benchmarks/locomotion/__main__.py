"""Command line of :mod:`benchmarks.locomotion`."""

import argparse
from pathlib import Path

import torch as th

import benchmarks.locomotion
from benchmarks.locomotion import figures
from benchmarks.locomotion.methods import FAMILIES, METHODS
from benchmarks.locomotion.report import markdown_table
from benchmarks.locomotion.runs import run
from benchmarks.provenance import FIGURES, RESULTS


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
        command.add_argument("--checkpoints", type=Path, default=Path("runs") / "locomotion")
    table = commands.add_parser("table", help="what the results say, in Markdown")
    table.add_argument("--results", type=Path, default=RESULTS / "locomotion")
    figures = commands.add_parser("figures", help="draw them into the documentation's folder")
    figures.add_argument("--results", type=Path, default=RESULTS / "locomotion")
    figures.add_argument("--output", type=Path, default=FIGURES)
    return result


def draw(results: Path, output: Path) -> None:
    """Every figure, of both kinds of policy."""
    for kind in ("deterministic", "stochastic"):
        print(figures.figure_2(results, output / f"locomotion_figure2_{kind}.png", kind))
        for against in ("env_steps", "train_seconds"):
            print(figures.figure_5(results, output / f"locomotion_figure5_{against}_{kind}.png", against, kind))
        print(figures.profiles(results, output / f"locomotion_profiles_{kind}.png", kind))


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command == "table":
        print(markdown_table(args.results))
        return
    if args.command == "figures":
        draw(args.results, args.output)
        return
    th.set_num_threads(args.threads)
    methods, seeds = ([args.method], [args.seed]) if args.command == "train" else (args.methods, args.seeds)
    for seed in seeds:
        for method in methods:
            command = (
                f"python -m benchmarks.locomotion train --method {method} --env {args.env} --seed {seed} "
                f"--timesteps {args.timesteps:.0f} --threads {args.threads}"
            )
            run(
                method,
                args.env,
                seed,
                int(args.timesteps),
                command,
                args.results,
                args.checkpoints,
                n_threads=args.threads,
            )


if __name__ == "__main__":
    main()
