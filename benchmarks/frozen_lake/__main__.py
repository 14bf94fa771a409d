"""
Frozen Lake experiments, figures and tables, exact and sampled.

    python -m benchmarks.frozen_lake run                   # all exact results, on one core, in minutes
    python -m benchmarks.frozen_lake run --only lambda     # one part: main, lambda, variance, convergence, sampled
    python -m benchmarks.frozen_lake run --only sampled    # from episodes, on one core, in about half an hour
    python -m benchmarks.frozen_lake draw                  # figures and tables, from the results in the repository
"""

import argparse
import time
from collections.abc import Callable

import torch as th

from benchmarks.frozen_lake import experiments, figures, sampled, sweep_figures, sweeps, tables
from benchmarks.frozen_lake.results import save
from benchmarks.provenance import FIGURES, commit, write_text

TRAINING = {
    "n_maps": experiments.N_MAPS,
    "n_iterations": experiments.N_ITERATIONS,
    "learning_rate": experiments.LEARNING_RATE,
    "optimizer": "adam",
}


def run_main(command: str) -> None:
    """Tune on other maps, then train and evaluate every method."""
    tuning = experiments.tune()
    save("tuning", command, TRAINING | {"tuning_seed": experiments.TUNING_SEED, "grids": experiments.GRIDS}, tuning)
    rows = experiments.run(experiments.best_settings(tuning))
    save("main", command, TRAINING | {"seeds": experiments.SEEDS}, rows)


def run_lambda(command: str) -> None:
    """Gap and bounds as λ varies."""
    save("lambda", command, TRAINING | {"seed": sweeps.SWEEP_SEED}, sweeps.sweep_lambda())


def run_variance(command: str) -> None:
    """Gap and bounds as the task variance varies."""
    settings = TRAINING | {"n_maps": sweeps.N_DISTINCT_MAPS, "seeds": sweeps.VARIANCE_SEEDS}
    save("variance", command, settings, sweeps.sweep_variance())


def run_convergence(command: str) -> None:
    """Norm of the exact meta-gradient under gradient ascent."""
    settings = {"n_maps": experiments.N_MAPS, "optimizer": "gradient_ascent", "seed": sweeps.SWEEP_SEED}
    save("convergence", command, settings, sweeps.convergence())


def run_sampled(command: str) -> None:
    """The main experiment from episodes, saved after every seed."""
    settings = TRAINING | {
        "n_iterations": sampled.N_ITERATIONS,
        "meta_batch_size": sampled.META_BATCH_SIZE,
        "n_episodes": sampled.N_EPISODES,
        "hypergradient_damping": sampled.DAMPING,
    }
    for seeds, rows in sampled.run():
        save("sampled", command, settings | {"seeds": seeds}, rows)


PARTS: dict[str, Callable[[str], None]] = {
    "main": run_main,
    "lambda": run_lambda,
    "variance": run_variance,
    "convergence": run_convergence,
    "sampled": run_sampled,
}


def draw() -> None:
    """Write every figure and table into the documentation's folder."""
    for method, number in (("alg1", 1), ("alg2", 3), ("alg3", 4)):
        print(figures.adaptation_figure(method, number))
    print(figures.sampled_figure())
    print(sweep_figures.lambda_figure(), sweep_figures.variance_figure(), sweep_figures.convergence_figure(), sep="\n")
    print(write_text(FIGURES / "frozen_lake_sampled.md", tables.sampled_table()))


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="compute results").add_argument("--only", choices=tuple(PARTS))
    commands.add_parser("draw", help="write figures and tables from the results")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    commit()
    if arguments.command == "draw":
        draw()
        return
    exact = [part for part in PARTS if part != "sampled"]
    for part in exact if arguments.only is None else (arguments.only,):
        start = time.perf_counter()
        PARTS[part](f"python -m benchmarks.frozen_lake run --only {part}")
        print(f"{part}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
