"""
A small tuning budget for every method of :mod:`benchmarks.locomotion`: short runs of one seed, or three.

    python -m benchmarks.tuning run --env HalfCheetahVel --methods maml promp
    python -m benchmarks.tuning finals --env Navigation2D
    python -m benchmarks.tuning table

Four runs per method and family: three values of what decides how far an adaptation goes, and of the middle one a second
size of the outer step. On Navigation2D all but BO-MRL got a second round of four: three more values, and of the best of
the six the second size; and MAML, FOMAML, E-MAML another one, with Adam, which is BO-MRL's outer step there. Last, all
methods got four runs there with larger discounts than the 0.5 that was chosen by hand. The seed is none of the
comparison's. Of the methods that got a second round, ``finals`` ran the three best with two more seeds, before the
larger discounts and after them. What the comparison uses is the best, of these if there are any, by the mean of the two
returns in the table.
``benchmarks/results/tuning/<env>/<method>,<what differs>/seed_100.json`` are files like those of the comparison. A run
that is stopped goes on when it is started again; one that is finished stands, whatever the configuration file says now.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import torch as th

from benchmarks.locomotion.report import final_after_one, group_runs, interquartile_mean
from benchmarks.locomotion.runs import Place, Protocol, run
from benchmarks.provenance import RESULTS, commit, write_text

SEED, MORE_SEEDS = 100, (101, 102)
N_FINALISTS = 3
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


def _discounts(best: dict[str, Any], lever: str, for_09: float, for_099: float) -> list[dict[str, Any]]:
    """Two larger discounts, each with the best settings of the small one and with another value of the lever."""
    pairs = (({"gamma": 0.9}, for_09), ({"gamma": 0.99, "gae_lambda": 0.97}, for_099))
    return [{**best, **changed, **discount} for discount, value in pairs for changed in ({}, {lever: value})]


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
TRPO_AND_ADAM = [*_second_round("inner_lr", (2.0, 5.0, 10.0), (0.3, 0.5, 1.0), 1.0, KL), *ADAM]
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
        "bomrl-alg1": [
            *_tries("reg_coef", (0.03, 0.1, 0.3), FALLING),
            *_discounts({"reg_coef": 0.03, **_size(FALLING, 0)}, "reg_coef", 0.1, 0.3),
        ],
        "bomrl-alg2": [
            *_tries("reg_coef", (0.03, 0.1, 0.3), FALLING),
            *_discounts({"reg_coef": 0.1, **_size(FALLING, 0)}, "reg_coef", 0.3, 1.0),
        ],
        "bomrl-alg3": [
            *_tries("reg_coef", (0.01, 0.03, 0.1), FALLING),
            *_discounts({"reg_coef": 0.03, **_size(FALLING, 1)}, "reg_coef", 0.1, 0.3),
        ],
        "maml": [*TRPO_AND_ADAM, *_discounts(ADAM[-1], "inner_lr", 0.3, 0.3)],
        "fomaml": [*TRPO_AND_ADAM, *_discounts({"inner_lr": 1.0, **_size(KL, 0)}, "inner_lr", 0.3, 0.3)],
        "emaml": [*TRPO_AND_ADAM, *_discounts({"inner_lr": 1.0, **_size(KL, 1)}, "inner_lr", 0.3, 0.3)],
        "promp": [
            *_second_round("inner_lr", (0.3, 0.5, 1.0), (2.0, 5.0, 10.0), 1.0, RATE),
            *_discounts({"inner_lr": 1.0, **_size(RATE, 0)}, "inner_lr", 0.3, 0.3),
        ],
        "reptile": [
            *_second_round("inner_lr", (0.5, 2.0, 5.0), (0.1, 0.2, 1.0), 0.5, INTERPOLATION),
            *_discounts({"inner_lr": 0.5, **_size(INTERPOLATION, 0)}, "inner_lr", 0.2, 0.2),
        ],
        "rl2": [
            *_second_round("rl2_learning_rate", (1e-4, 3e-4, 1e-3), (2e-3, 3e-3, 1e-2), 1e-3, EPOCHS),
            *_discounts({"rl2_learning_rate": 3e-3, **_size(EPOCHS, 0)}, "rl2_learning_rate", 1e-3, 1e-3),
        ],
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


def with_outer_step(overrides: dict[str, Any]) -> dict[str, Any]:
    """
    :param overrides: what differs from a method's settings
    :return: the same, with the outer step that ``max_kl`` is an argument of, whatever the configuration file has chosen
    """
    return {"outer_step": "trpo", **overrides} if "max_kl" in overrides else overrides


def finished(results: Path, env: str) -> dict[str, list[dict[str, Any]]]:
    """
    :param results: folder of the results
    :param env: a key of :data:`TRIES`
    :return: name of what was tried -> the finished runs, by seed
    """
    return {label: runs for (name, label, _), runs in group_runs(results).items() if name == f"bomrl/{env}-v0"}


def returns_of(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """
    :param runs: finished ones of the same settings
    :return: after one adaptation, interquartile mean over tasks and seeds, stochastic and deterministic
    """
    stochastic, deterministic = (
        interquartile_mean(final_after_one(runs, kind)) for kind in ("stochastic", "deterministic")
    )
    return stochastic, deterministic


def finalists(results: Path, env: str, method: str) -> list[dict[str, Any]]:
    """
    :param results: folder of the results
    :param env: a key of :data:`TRIES`
    :param method: its name
    :return: what differs from its settings in the best runs of the first seed, best first
    :raises SystemExit: if a run is missing
    """
    scores, found = [], finished(results, env)
    for overrides in TRIES[env][method]:
        first = [run for run in found.get(label_of(method, overrides), []) if run["seed"] == SEED]
        if not first:
            raise SystemExit(f"{label_of(method, overrides)} has no finished run on {env}: run the first seed before")
        scores.append(sum(returns_of(first)))
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    return [TRIES[env][method][number] for number in order[:N_FINALISTS]]


def table(results: Path) -> str:
    """
    :param results: folder of the results
    :return: returns after one adaptation of what was tried, interquartile means over tasks and seeds, in Markdown
    """
    lines = ["| env | method | what was tried | seeds | stochastic | deterministic |", "|---|---|---|---|---|---|"]
    for family, methods in TRIES.items():
        found = finished(results, family)
        for method, overrides in ((name, one) for name, tries in methods.items() for one in tries):
            runs = found.get(label_of(method, overrides))
            if runs:
                cells = [str(len(runs)), *(f"{value:.1f}" for value in returns_of(runs))]
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
    commands.add_parser("run", help="train what is missing")
    commands.add_parser("finals", help="train the best with more seeds")
    for name in ("run", "finals"):
        trains = commands.choices[name]
        trains.add_argument("--env", choices=tuple(TRIES), required=True)
        trains.add_argument("--methods", nargs="+", help="all that are tuned on the family, if left out")
        trains.add_argument("--checkpoints", type=Path, default=Path("runs") / "tuning")
    shows = commands.add_parser("table", help="what the results say, in Markdown")
    shows.add_argument("--output", type=Path, help="a file to write it into as well")
    for name in ("run", "finals", "table"):
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
    for method in methods:
        tries, seeds = TRIES[args.env][method], (SEED,)
        if args.command == "finals":
            tries, seeds = finalists(args.results, args.env, method), MORE_SEEDS
        command = f"python -m benchmarks.tuning {args.command} --env {args.env} --methods {method}"
        found = finished(args.results, args.env)
        for overrides, seed in product(tries, seeds):
            label = label_of(method, overrides)
            if seed not in {one["seed"] for one in found.get(label, [])}:
                place = Place(args.results, args.checkpoints, label)
                run(method, args.env, seed, TIMESTEPS[args.env], command, place, PROTOCOL, with_outer_step(overrides))


if __name__ == "__main__":
    main()
