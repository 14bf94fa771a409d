"""
Train and score what is missing of a suite.

    python -m benchmarks.run comparison
    python -m benchmarks.run comparison --method maml promp --env Navigation2D --seed 0 1

A suite is a file of ``benchmarks/suites``. A run that is stopped goes on when the command is given again, a
meta-algorithm to the same numbers. Several processes may be given the same suite: each takes what no other is at.
Results go to ``benchmarks/results/<suite>.csv`` and ``.json``.
"""

import argparse
import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch as th

from benchmarks.learners import Learner, make_learner
from benchmarks.methods import METHODS, settings_of, short_name
from benchmarks.provenance import RESULTS, commit
from benchmarks.records import append_rows, csv_path, finished_runs, read_rows, record_run, rows_of
from benchmarks.scoring import KINDS, Plan, Scores, choose_tasks
from benchmarks.suites import Run, load_suite, suite_names

CHECKPOINTS = Path("runs")


class Progress:
    """Prints a line per evaluation, with the time that is left."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._missing = sum(run.env_steps for run in runs)
        self._done, self._start = 0.0, time.perf_counter()

    def show(self, run: Run, learner: Learner, scores: Scores, new_steps: int) -> None:
        """Print a line after an evaluation, before which so many environment steps were trained."""
        self._done += new_steps
        returns = " -> ".join(f"{values.mean():.1f}" for values in scores.returns["stochastic"])
        left = ""
        if self._done:
            per_step = (time.perf_counter() - self._start) / self._done
            here, all_of_it = run.env_steps - learner.env_steps, self._missing - self._done
            left = f"; left: {_clock(here * per_step)}, of the suite {_clock(all_of_it * per_step)}"
        name = f"{short_name(run.env)} {run.label} seed {run.seed}"
        print(f"{name}: {learner.env_steps:,} of {run.env_steps:,} steps, stochastic {returns}{left}", flush=True)

    def skip(self, env_steps: int) -> None:
        """Take off the list what another process or an earlier start did."""
        self._missing -= env_steps


def _clock(seconds: float) -> str:
    minutes = round(max(seconds, 0.0) / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"


def run_one(run: Run, path: Path, checkpoints: Path, command: str, progress: Progress) -> bool:
    """Train and score one run, or go on with it."""
    settings = settings_of(run.method, run.env, run.overrides)
    folder = checkpoints / run.suite / short_name(run.env).replace("/", "_") / run.label / f"seed_{run.seed}"
    with _alone(folder) as is_alone:
        if not is_alone or _key(run) in finished_runs(path):
            progress.skip(run.env_steps)
            return False
        learner = make_learner(run.method, run.env, settings, run.seed, run.env_steps, folder)
        progress.skip(learner.env_steps)
        before = learner.env_steps
        points = evaluation_points(learner.n_iterations, run.evaluation.n_evaluations)
        for point in points:
            plan = run.evaluation.final if point == points[-1] else run.evaluation.training
            if point < learner.n_done or (point == learner.n_done and _is_scored(run, learner.env_steps, plan, path)):
                continue
            learner.train(point)
            scores = learner.score(plan)
            append_rows(path, rows_of(run, learner.env_steps, sum(learner.stopwatch.seconds), scores))
            progress.show(run, learner, scores, learner.env_steps - before)
            before = learner.env_steps
        record_run(path, run, settings, command)
        shutil.rmtree(folder)
    return True


def _key(run: Run) -> tuple[str, str, int]:
    return run.label, run.env, run.seed


def _is_scored(run: Run, env_steps: int, plan: Plan, path: Path) -> bool:
    """Return whether all lines of an evaluation are there; a killed process may have left some of them."""
    n_tasks = len({str(task) for task in choose_tasks(run.env, plan.max_tasks)})
    n_scores = 1 if METHODS[run.method].kind == "oracle" else plan.n_adaptations + 1
    key = (*_key(run), env_steps)
    found = sum((row.method, row.env, row.seed, row.env_steps) == key for row in read_rows(path))
    return found >= len(KINDS) * n_scores * n_tasks


def evaluation_points(n_iterations: int, n_evaluations: int) -> list[int]:
    """Return the iterations to evaluate at: the first, the last, and others between them, equally spaced."""
    return sorted({round(n_iterations * i / n_evaluations) for i in range(n_evaluations + 1)})


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether no other process works in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def choose(
    runs: Sequence[Run], methods: Sequence[str] | None, envs: Sequence[str] | None, seeds: Sequence[int] | None
) -> list[Run]:
    """Return the runs that filters leave."""
    filters = (
        ("method", methods, lambda run: {run.method, run.label}),
        ("env", envs, lambda run: {run.env, short_name(run.env)}),
        ("seed", seeds, lambda run: {run.seed}),
    )
    for name, wanted, values in filters:
        known = set().union(*(values(run) for run in runs))
        wrong = [value for value in wanted or () if value not in known]
        if wrong:
            raise ValueError(f"{name} must be among {', '.join(sorted(map(str, known)))}, got {wrong}")
        runs = [run for run in runs if wanted is None or values(run) & set(wanted)]
    return list(runs)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("suite", choices=suite_names())
    result.add_argument("--method", nargs="+", help="methods, with or without overrides; all if left out")
    result.add_argument("--env", nargs="+", help="families; all if left out")
    result.add_argument("--seed", nargs="+", type=int, help="seeds; all if left out")
    result.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV and the JSON")
    result.add_argument(
        "--checkpoints", type=Path, default=CHECKPOINTS, help="folder of what unfinished runs go on from"
    )
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    commit()
    th.set_num_threads(1)
    path = csv_path(args.suite, args.results)
    try:
        runs = choose(load_suite(args.suite), args.method, args.env, args.seed)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    finished = finished_runs(path)
    missing = [run for run in runs if _key(run) not in finished]
    print(f"{args.suite}: {len(missing)} of {len(runs)} runs are missing", flush=True)
    progress = Progress(missing)
    for run in missing:
        run_one(run, path, args.checkpoints, f"python -m benchmarks.run {args.suite}", progress)


if __name__ == "__main__":
    main()
