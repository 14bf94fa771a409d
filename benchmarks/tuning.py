"""
A small tuning budget for every method of :mod:`benchmarks.locomotion`: short runs of one seed.

    python -m benchmarks.tuning run --env HalfCheetahVel --methods maml promp
    python -m benchmarks.tuning table

Four runs per method and family: three values of what decides how far an adaptation goes, and of the middle one a second
size of the outer step. On Navigation2D all but BO-MRL got a second round of four: three more values, and of the best of
the six the second size; and MAML, FOMAML, E-MAML a third one, with Adam, which is BO-MRL's outer step there. The seed
is none of the comparison's. What the comparison uses is the best, by the mean of the two returns in the table.
``benchmarks/results/tuning/<env>/<method>,<what differs>/seed_100.json`` are files like those of the comparison. A run
that is stopped goes on when it is started again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch as th

from benchmarks.locomotion.report import estimate, final_after_one, group_runs
from benchmarks.locomotion.runs import Place, Protocol, run
from benchmarks.provenance import RESULTS, commit, write_text

SEED = 100
TIMESTEPS = {"HalfCheetahVel": 1_000_000, "Navigation2D": 1_200_000}
PROTOCOL = Protocol(
    n_segments=1,
    n_adaptations=1,
    n_eval_episodes=10,
    max_tasks=10,
    n_adaptations_before=0,
    n_eval_episodes_before=1,
    max_tasks_before=1,
)
"""One score, at the end, of ten test tasks."""


Pairs = dict[str, tuple[Any, Any]]
"""Names of what sizes the outer step -> the first size and the second."""


def _tries(lever: str, values: tuple[float, float, float], outer: Pairs) -> list[dict[str, Any]]:
    """The values with the first size of the outer step, and the middle one with the second."""
    return [*({lever: value, **_size(outer, 0)} for value in values), {lever: values[1], **_size(outer, 1)}]


def _second_round(
    lever: str, values: tuple[float, float, float], more: tuple[float, float, float], best: float, outer: Pairs
) -> list[dict[str, Any]]:
    """The first round, more values, and the best of all with the second size of the outer step."""
    first = _tries(lever, values, outer)
    return [*first, *({lever: value, **_size(outer, 0)} for value in more), {lever: best, **_size(outer, 1)}]


def _size(outer: Pairs, number: int) -> dict[str, Any]:
    return {name: pair[number] for name, pair in outer.items()}


KL, RATE = {"max_kl": (0.02, 0.01)}, {"learning_rate": (1e-3, 3e-4)}
FALLING = {"learning_rate": ("lin_0.001", "lin_0.0003")}
EPOCHS = {"rl2_n_epochs": (5, 10)}
INTERPOLATION = {"interpolation": ("lin_1.0", "lin_0.3")}
ADAM = [
    {"outer_step": "adam", **overrides}
    for overrides in _tries("inner_lr", (0.5, 1.0, 2.0), {"learning_rate": ("lin_0.005", "lin_0.001")})
]
TRIES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "HalfCheetahVel": {
        "bomrl-alg1": _tries("reg_coef", (0.05, 0.1, 0.3), KL),
        "bomrl-alg2": _tries("reg_coef", (0.05, 0.1, 0.3), KL),
        "bomrl-alg3": _tries("reg_coef", (0.1, 0.5, 2.5), KL),
        "maml": _tries("inner_lr", (0.1, 0.3, 1.0), KL),
        "emaml": _tries("inner_lr", (0.1, 0.3, 1.0), KL),
        "promp": _tries("inner_lr", (0.1, 0.3, 1.0), RATE),
        "rl2": _tries("rl2_learning_rate", (1e-4, 3e-4, 1e-3), EPOCHS),
    },
    "Navigation2D": {
        "bomrl-alg1": _tries("reg_coef", (0.03, 0.1, 0.3), FALLING),
        "bomrl-alg3": _tries("reg_coef", (0.01, 0.03, 0.1), FALLING),
        "maml": [*_second_round("inner_lr", (2.0, 5.0, 10.0), (0.3, 0.5, 1.0), 1.0, KL), *ADAM],
        "fomaml": [*_second_round("inner_lr", (2.0, 5.0, 10.0), (0.3, 0.5, 1.0), 1.0, KL), *ADAM],
        "emaml": [*_second_round("inner_lr", (2.0, 5.0, 10.0), (0.3, 0.5, 1.0), 1.0, KL), *ADAM],
        "promp": _second_round("inner_lr", (0.3, 0.5, 1.0), (2.0, 5.0, 10.0), 1.0, RATE),
        "reptile": _second_round("inner_lr", (0.5, 2.0, 5.0), (0.1, 0.2, 1.0), 0.5, INTERPOLATION),
        "rl2": _second_round("rl2_learning_rate", (1e-4, 3e-4, 1e-3), (2e-3, 3e-3, 1e-2), 1e-3, EPOCHS),
    },
}
"""Family -> method -> what differs from its settings."""


def label_of(method: str, overrides: dict[str, Any]) -> str:
    """
    :param method: its name
    :param overrides: what differs from its settings
    :return: the run's name
    """
    return ",".join([method, *(f"{name}={value}" for name, value in overrides.items())])


def variants(env: str, methods: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    :param env: a key of :data:`TRIES`
    :param methods: names
    :return: method, and what differs from its settings
    """
    for method in methods:
        for overrides in TRIES[env][method]:
            yield method, overrides


def table(results: Path) -> str:
    """
    :param results: folder of the results
    :return: returns after one adaptation of every finished run, interquartile mean over tasks, in Markdown
    """
    groups = {(env, label): runs for (env, label, _), runs in group_runs(results).items()}
    lines = ["| env | method | what was tried | stochastic | deterministic |", "|---|---|---|---|---|"]
    for family, methods in TRIES.items():
        for method, overrides in variants(family, list(methods)):
            runs = groups.get((f"bomrl/{family}-v0", label_of(method, overrides)))
            if runs:
                cells = [
                    f"{estimate(final_after_one(runs, kind)).value:.1f}" for kind in ("stochastic", "deterministic")
                ]
                tried = ", ".join(f"{name} {value}" for name, value in overrides.items())
                lines.append(f"| {family} | {method} | {tried} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """
    :return: the parser
    """
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = result.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="train what is missing")
    runs.add_argument("--env", choices=tuple(TRIES), required=True)
    runs.add_argument("--methods", nargs="+", help="all that are tuned on the family, if left out")
    runs.add_argument("--checkpoints", type=Path, default=Path("runs") / "tuning")
    shows = commands.add_parser("table", help="what the results say, in Markdown")
    shows.add_argument("--output", type=Path, help="a file to write it into as well")
    for name in ("run", "table"):
        commands.choices[name].add_argument("--results", type=Path, default=RESULTS / "tuning")
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command == "table":
        text = table(args.results)
        if args.output is not None:
            write_text(args.output, text)
        print(text)
        return
    methods = args.methods or list(TRIES[args.env])
    unknown = [method for method in methods if method not in TRIES[args.env]]
    if unknown:
        raise SystemExit(f"methods must be among {', '.join(TRIES[args.env])}, got {', '.join(unknown)}")
    commit()
    th.set_num_threads(1)
    for method, overrides in variants(args.env, methods):
        command = f"python -m benchmarks.tuning run --env {args.env} --methods {method}"
        place = Place(args.results, args.checkpoints, label_of(method, overrides))
        run(method, args.env, SEED, TIMESTEPS[args.env], command, place, PROTOCOL, overrides)


if __name__ == "__main__":
    main()
