"""
Environment steps per second: raw physics, the VecEnv, rollouts, whole meta-iterations; and how their time grows.

    python -m benchmarks.throughput                     # everything but the scaling curves, then the figure
    python -m benchmarks.throughput --scaling           # the scaling curves, then the figure
    python -m benchmarks.throughput --only sizes --env Ant --sizes 20
    python -m benchmarks.throughput --only figure,table

Parts: ``sizes`` (raw, VecEnv, rollouts, meta-iteration for 5, 20 and 40 tasks), ``baselines`` (SB3's DummyVecEnv and
SubprocVecEnv, and the learning phase one task at a time), ``memory`` (peak of the largest setting, in a process of its
own), ``threads`` (thread counts, and learning beside rollouts), ``scaling``, ``figure``, ``table``.

What is compared is timed in turns: one repetition of each, then the next one of each.
``benchmarks/results/throughput.json`` is written after every part and keeps the rows of the parts that did not run;
every row names the command and the commit that made it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import FIGURES, RESULTS, machine, provenance, write_json
from benchmarks.throughput_models import (
    ENV_IDS,
    PHASES,
    VARIANTS,
    RawPhysics,
    Timing,
    baseline_env,
    make_model,
    meta_iteration,
    random_actions,
    rollouts,
    settings,
)

PATH = RESULTS / "throughput.json"
FIGURE = FIGURES / "throughput.png"
PACKAGES = ("sb3-bomrl", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
PARTS = ("sizes", "baselines", "memory", "threads")
N_ENVS_PER_TASK = 20
SECONDS_OF_A_LONG_ROUND, REPETITIONS_OF_LONG_ROUNDS = 400.0, 3

Row = dict[str, Any]


def interleaved(
    pieces: dict[str, Callable[[], Timing]], n_repetitions: int, warm_up: bool = True
) -> tuple[dict[str, list[Timing]], int]:
    """Time every piece once per round. Rounds of more than 400 seconds are repeated three times only."""
    if warm_up:
        for piece in pieces.values():
            piece()
    timings: dict[str, list[Timing]] = {name: [] for name in pieces}
    done = 0
    while done < n_repetitions:
        start = time.perf_counter()
        for name, piece in pieces.items():
            timings[name].append(piece())
        done += 1
        if time.perf_counter() - start > SECONDS_OF_A_LONG_ROUND:
            n_repetitions = min(n_repetitions, REPETITIONS_OF_LONG_ROUNDS)
    return timings, done


def rows_of(timings: dict[str, list[Timing]], **common: Any) -> list[Row]:
    """Medians, and every single time."""
    rows = []
    for name, values in timings.items():
        seconds = statistics.median(t.seconds for t in values)
        row = {**common, "what": name, "env_steps": values[0].env_steps, "seconds": round(seconds, 4)}
        row["env_steps_per_second"] = round(statistics.median(t.env_steps / t.seconds for t in values), 1)
        row["repetitions"], row["all_seconds"] = len(values), [round(t.seconds, 4) for t in values]
        if values[0].phases is not None:
            row["phases"] = {p: round(statistics.median(t.phases[p] for t in values if t.phases), 4) for p in PHASES}
        rows.append(row)
        print(f"  {common.get('env', '')} {name:28s} {row['env_steps_per_second']:>10,.0f} env steps/s", flush=True)
    return rows


def sizes(env: str, n_tasks: int, n_steps: int, n_repetitions: int) -> list[Row]:
    """Raw physics, VecEnv, rollouts and meta-iterations of one size."""
    model = make_model(ENV_IDS[env], n_tasks, N_ENVS_PER_TASK)
    models = {
        name: make_model(ENV_IDS[env], n_tasks, N_ENVS_PER_TASK, n_steps=n_steps, **variant)
        for name, variant in VARIANTS.items()
    }
    raw, generator = RawPhysics(ENV_IDS[env], model.n_envs), np.random.default_rng(0)
    # an Ant's step costs five times a HalfCheetah's: a quarter of an episode measures its rate as well
    n_rate_steps = n_steps if env == "HalfCheetah" else n_steps // 4
    pieces: dict[str, Callable[[], Timing]] = {
        "raw": lambda: raw.run(n_rate_steps),
        "vec_env": lambda: random_actions(model.env, n_rate_steps, generator),
        "rollouts": lambda: rollouts(model, n_rate_steps),
    }
    for name, variant in models.items():
        pieces[f"meta_iteration/{name}"] = lambda variant=variant: meta_iteration(variant)
    long = env == "Ant" and n_tasks > 5  # nothing to warm up that the minutes of a round would not hide
    timings, _ = interleaved(pieces, n_repetitions, warm_up=not long)
    for each in (model, *models.values()):
        each.env.close()
    return rows_of(timings, part="sizes", env=env, n_tasks=n_tasks, n_envs_per_task=N_ENVS_PER_TASK)


def baselines(env: str, n_tasks: int, n_steps: int, n_subproc: int, n_repetitions: int) -> list[Row]:
    """
    SB3's VecEnvs, and the learning phase one task at a time, beside the default in the same rounds.

    As many processes as environments would not fit in memory: SB3's have fewer, which play more episodes each.
    """
    n_baseline_envs = {"dummy": 5 * n_tasks, "subproc": n_subproc}
    env_id, generator = ENV_IDS[env], np.random.default_rng(0)
    fast, single = (make_model(env_id, n_tasks, N_ENVS_PER_TASK, n_steps=n_steps) for _ in range(2))
    single.tasks_per_chunk = 1
    raw = RawPhysics(env_id, fast.n_envs)
    pieces: dict[str, Callable[[], Timing]] = {
        "raw": lambda: raw.run(n_steps // 4),
        "meta_iteration/default": lambda: meta_iteration(fast),
        "meta_iteration/one_task_at_a_time": lambda: meta_iteration(single),
    }
    models = [fast, single]
    for backend, n_envs in n_baseline_envs.items():
        n_envs_per_task = max(1, n_envs // n_tasks)  # in waves, where there are more tasks than environments
        venv = baseline_env(env_id, backend, n_envs)
        n_longer = n_steps * N_ENVS_PER_TASK // n_envs_per_task
        model = make_model(env_id, n_tasks, n_envs_per_task, env=venv, n_steps=n_longer)
        model.tasks_per_chunk = 1
        models.append(model)
        pieces[f"vec_env/{backend}"] = lambda venv=venv: random_actions(venv, n_steps // 2, generator)
        pieces[f"meta_iteration/{backend}_one_task_at_a_time"] = lambda model=model: meta_iteration(model)
    timings, _ = interleaved(pieces, n_repetitions, warm_up=False)
    for model in models:
        model.env.close()
    return rows_of(
        timings, part="baselines", env=env, n_tasks=n_tasks, n_envs_per_task=N_ENVS_PER_TASK, n_envs=n_baseline_envs
    )


def memory(env: str, n_tasks: int, n_steps: int) -> list[Row]:
    """Peak resident memory of one meta-iteration."""
    script = [sys.executable, "-m", "benchmarks.peak_memory", "--env-id", ENV_IDS[env]]
    options = ["--n-tasks", str(n_tasks), "--n-steps", str(n_steps)]
    done = subprocess.run([*script, *options], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    print(f"  {env} {n_tasks} tasks: {row['peak_mb']} MiB", flush=True)
    return [{"part": "memory", "env": env, "what": "peak_memory", **row}]


def merge(path: Path, new: Sequence[Row], command: str) -> None:
    """Replace the rows of the same part, environment and size, and write the file."""
    source = provenance(command, machine(), PACKAGES)

    def key(row: Row) -> tuple:
        names = ("part", "env", "n_tasks", "what", "axis", "value")
        return tuple(str(row.get(name)) for name in names)

    rows = {key(row): row for row in load(path)["rows"]} if path.exists() else {}
    for row in new:
        rows[key(row)] = {**row, "command": command, "commit": source["commit"]}
    ordered = [rows[k] for k in sorted(rows)]
    write_json(path, {"provenance": source, "settings": settings(), "ratios": ratios(ordered), "rows": ordered})


def load(path: Path) -> dict[str, Any]:
    """The results so far."""
    return json.loads(path.read_text())


def ratios(rows: Sequence[Row]) -> list[Row]:
    """Rates relative to the raw physics of the same rounds, and the default relative to the baselines."""
    rates = {(r["part"], r["env"], r.get("n_tasks"), r["what"]): r.get("env_steps_per_second") for r in rows}
    result: list[Row] = []
    for (part, env, n_tasks, what), rate in rates.items():
        if part not in ("sizes", "baselines") or what == "raw":
            continue
        row = {"part": part, "env": env, "n_tasks": n_tasks, "what": what}
        row["of_raw"] = round(rate / rates[part, env, n_tasks, "raw"], 3)
        if part == "baselines" and what.startswith("meta_iteration/"):
            row["default_is_faster_by"] = round(rates[part, env, n_tasks, "meta_iteration/default"] / rate, 2)
        result.append(row)
    return result


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)},scaling,figure,table")
    parser.add_argument("--scaling", action="store_true", help="the scaling curves")
    parser.add_argument("--env", choices=tuple(ENV_IDS), action="append", help="default: both")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 20, 40], help="numbers of tasks")
    parser.add_argument("--n-steps", type=int, default=200, help="per phase and environment")
    parser.add_argument("--baseline-tasks", type=int, default=20)
    parser.add_argument("--subproc-envs", type=int, default=10, help="processes of SubprocVecEnv")
    parser.add_argument("--output", type=Path, default=PATH)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--baseline-repetitions", type=int, default=5)
    args = parser.parse_args()
    from benchmarks import throughput_figure, throughput_scaling, throughput_threads

    command = f"python -m benchmarks.throughput {' '.join(sys.argv[1:])}".strip()
    chosen = args.only.split(",") if args.only else (["scaling"] if args.scaling else list(PARTS)) + ["figure", "table"]
    unknown = set(chosen) - {*PARTS, "scaling", "figure", "table"}
    if unknown:
        parser.error(f"--only must name some of {PARTS}, scaling, figure, table, got {sorted(unknown)}")
    for env in args.env or ENV_IDS:
        for n_tasks in args.sizes if "sizes" in chosen else ():
            print(f"sizes: {env}, {n_tasks} tasks", flush=True)
            merge(args.output, sizes(env, n_tasks, args.n_steps, args.repetitions), command)
        if "baselines" in chosen:
            print(f"baselines: {env}", flush=True)
            merge(
                args.output,
                baselines(env, args.baseline_tasks, args.n_steps, args.subproc_envs, args.baseline_repetitions),
                command,
            )
        if "memory" in chosen:
            merge(args.output, memory(env, max(args.sizes), args.n_steps), command)
    if "threads" in chosen:
        for rows in throughput_threads.measure(args.baseline_tasks, N_ENVS_PER_TASK, args.n_steps, args.repetitions):
            merge(args.output, rows, command)
    if "scaling" in chosen:
        for rows in throughput_scaling.curves(args.n_steps // 4):
            merge(args.output, rows, command)
    if "table" in chosen:
        print(throughput_figure.table(load(args.output)))
    if "figure" in chosen:
        print(
            throughput_figure.draw(
                load(args.output), FIGURE if args.output == PATH else args.output.with_suffix(".png")
            )
        )


if __name__ == "__main__":
    main()
