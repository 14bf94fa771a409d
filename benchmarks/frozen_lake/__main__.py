"""
Frozen Lake experiments and figures, exact and sampled.

    python -m benchmarks.frozen_lake run          # all exact results, on one core, in minutes
    python -m benchmarks.frozen_lake sampled      # the sampled ones, on one core, in about half an hour
    python -m benchmarks.frozen_lake meta_gradient  # sampled against exact meta-gradients, in minutes
    python -m benchmarks.frozen_lake speed        # how long either takes per training or iteration, in a minute
    python -m benchmarks.frozen_lake figure1      # Alg(1), from the results in the repository
    python -m benchmarks.frozen_lake figure3      # Alg(2)
    python -m benchmarks.frozen_lake figure4      # Alg(3)
    python -m benchmarks.frozen_lake lambda       # gap and bounds against lambda
    python -m benchmarks.frozen_lake variance     # gap and bounds against task variance
    python -m benchmarks.frozen_lake convergence  # norm of the meta-gradient
    python -m benchmarks.frozen_lake figure1_sampled, figure3_sampled, figure4_sampled
    python -m benchmarks.frozen_lake table        # returns on held-out maps, in Markdown
    python -m benchmarks.frozen_lake sampled_table, gap_table, meta_gradient_table
"""

import argparse
import time

import torch as th

from benchmarks.frozen_lake import experiments, figures, meta_gradient, sampled, speed, sweep_figures, sweeps, tables
from benchmarks.frozen_lake.results import save
from benchmarks.provenance import commit

PARTS = ("main", "lambda", "variance", "convergence")
DRAW = {
    "figure1": lambda: figures.adaptation_figure("alg1", 1),
    "figure3": lambda: figures.adaptation_figure("alg2", 3),
    "figure4": lambda: figures.adaptation_figure("alg3", 4),
    "figure1_sampled": lambda: figures.adaptation_figure("alg1", 1, is_sampled=True),
    "figure3_sampled": lambda: figures.adaptation_figure("alg2", 3, is_sampled=True),
    "figure4_sampled": lambda: figures.adaptation_figure("alg3", 4, is_sampled=True),
    "lambda": sweep_figures.lambda_figure,
    "variance": sweep_figures.variance_figure,
    "convergence": sweep_figures.convergence_figure,
    "table": tables.return_table,
    "sampled_table": tables.sampled_table,
    "gap_table": tables.gap_table,
    "meta_gradient_table": tables.meta_gradient_table,
}


def run(part: str) -> None:
    """
    Compute and save one part of the results.

    :param part: one of ``PARTS``
    """
    command = f"python -m benchmarks.frozen_lake run --only {part}"
    training = {
        "n_maps": experiments.N_MAPS,
        "n_iterations": experiments.N_ITERATIONS,
        "learning_rate": experiments.LEARNING_RATE,
        "optimizer": "adam",
    }
    if part == "main":
        tuning = experiments.tune()
        settings = training | {"tuning_seed": experiments.TUNING_SEED, "grids": experiments.GRIDS}
        save("tuning", command, settings, tuning)
        rows = experiments.run(experiments.best_settings(tuning))
        save("main", command, training | {"seeds": experiments.SEEDS}, rows)
    elif part == "lambda":
        save("lambda", command, training | {"seed": sweeps.SWEEP_SEED}, sweeps.sweep_lambda())
    elif part == "variance":
        settings = training | {"n_maps": sweeps.N_DISTINCT_MAPS, "seeds": sweeps.VARIANCE_SEEDS}
        save("variance", command, settings, sweeps.sweep_variance())
    else:
        settings = {"n_maps": experiments.N_MAPS, "optimizer": "gradient_ascent", "seed": sweeps.SWEEP_SEED}
        save("convergence", command, settings, sweeps.convergence())


def run_sampled() -> None:
    """Compute the sampled results, saved after every seed."""
    settings = {
        "n_maps": experiments.N_MAPS,
        "n_iterations": sampled.N_ITERATIONS,
        "meta_batch_size": sampled.META_BATCH_SIZE,
        "n_episodes": sampled.N_EPISODES,
        "hypergradient_damping": sampled.DAMPING,
        "learning_rate": experiments.LEARNING_RATE,
        "optimizer": "adam",
    }
    for seeds, rows in sampled.run():
        save("sampled", "python -m benchmarks.frozen_lake sampled", settings | {"seeds": seeds}, rows)


def run_meta_gradient() -> None:
    """Compare sampled and exact meta-gradients."""
    settings = {"n_maps": meta_gradient.N_MAPS, "hypergradient_damping": meta_gradient.DAMPING}
    save("meta_gradient", "python -m benchmarks.frozen_lake meta_gradient", settings, list(meta_gradient.measure()))


def run_speed() -> None:
    """Time exact meta-training and sampled meta-iterations."""
    settings = {
        "n_maps": experiments.N_MAPS,
        "n_exact_iterations": experiments.N_ITERATIONS,
        "meta_batch_size": sampled.META_BATCH_SIZE,
        "n_episodes": sampled.N_EPISODES,
        "n_repeats": speed.N_REPEATS,
        "family": speed.FAMILY,
        "seed": speed.SEED,
    }
    rows = speed.measure()
    save("speed", "python -m benchmarks.frozen_lake speed", settings, rows)
    for row in rows:
        print(row)


COMPUTE = {"sampled": run_sampled, "meta_gradient": run_meta_gradient, "speed": run_speed}


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="compute the exact results").add_argument("--only", choices=PARTS)
    commands.add_parser("sampled", help="compute the sampled results")
    commands.add_parser("meta_gradient", help="compare sampled and exact meta-gradients")
    commands.add_parser("speed", help="time exact meta-training and sampled meta-iterations")
    for name in DRAW:
        commands.add_parser(name, help="draw from the results")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    commit()
    if arguments.command in DRAW:
        print(DRAW[arguments.command]())
        return
    if arguments.command in COMPUTE:
        COMPUTE[arguments.command]()
        return
    for part in PARTS if arguments.only is None else (arguments.only,):
        start = time.perf_counter()
        run(part)
        print(f"{part}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
