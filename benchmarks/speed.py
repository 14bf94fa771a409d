"""
Measure seconds of training per environment step, with methods that take turns, so that a slow hour is everybody's.

    python -m benchmarks.speed comparison --env bomrl/Navigation2D-v0

Writes into the JSON beside the suite's CSV; figures and tables take the time of training from there.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch as th

from benchmarks.learners import make_learner
from benchmarks.methods import METHODS, settings_of
from benchmarks.provenance import RESULTS, commit, machine, write_json
from benchmarks.records import csv_path, provenance_path, read_provenance
from benchmarks.suites import load_suite, suite_names

TIMESTEPS = 10**9
"""Of a run that is never finished: only its first iterations are made."""


def measure(path: Path, env: str, methods: Sequence[str], n_rounds: int = 7) -> None:
    """
    Train one iteration of every method after the other, several times; a first round warms up and is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        learners = {
            method: make_learner(method, env, settings_of(method, env), 0, TIMESTEPS, Path(folder) / method)
            for method in methods
            if METHODS[method].kind != "untrained"
        }
        for i in range(n_rounds + 1):
            for method, learner in learners.items():
                learner.train(i + 1)
                print(f"{env} {method}, round {i}: {learner.stopwatch.seconds[-1]:.2f} s", flush=True)
    content = read_provenance(path)
    rows = [row for row in content.get("speed", []) if (row["env"], row["method"]) not in {(env, m) for m in learners}]
    for method, learner in learners.items():
        row = {"env": env, "method": method, "env_steps": learner.env_steps // learner.n_done}
        row["seconds"] = [round(value, 4) for value in learner.stopwatch.seconds[1:]]
        rows.append({**row, "hardware": machine(), "commit": commit()})
    write_json(provenance_path(path), {**content, "speed": rows})


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--env", required=True, help="Gymnasium id of a family of the suite")
    args = parser.parse_args()
    th.set_num_threads(1)
    methods = dict.fromkeys(run.method for run in load_suite(args.suite) if run.env == args.env)
    if not methods:
        raise SystemExit(f"env must be a family of the suite {args.suite}, got {args.env!r}")
    measure(csv_path(args.suite, RESULTS), args.env, list(methods))


if __name__ == "__main__":
    main()
