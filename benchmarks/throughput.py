"""
Environment steps per second: raw physics, the VecEnv, rollouts, whole meta-iterations, and their peak memory.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --env Ant --tasks 20

What is compared is timed in turns: one repetition of each, then the next one of each.
``benchmarks/results/throughput.json`` keeps the rows of what did not run; every row names its command and commit.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.batch import Batch
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.provenance import FIGURES, RESULTS, n_cores, provenance, write_json, write_text
from sb3_bomrl import BOMRL, make_meta_vec_env, register_envs
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.policies import NormalizedFlattenExtractor

PATH = RESULTS / "throughput.json"
ENV_IDS = {"HalfCheetah": "bomrl/HalfCheetahVel-v0", "Ant": "bomrl/AntVel-v0"}
N_ENVS_PER_TASK, N_SUBPROC = 20, 10
VARIANTS: dict[str, dict[str, Any]] = {
    "meta_iteration/default": {},
    # the outer step without solving the lower level again, and with a quarter of the states in its Fisher matrix
    "meta_iteration/no_line_search": {"line_search": False, "sub_sampling_factor": 4},
}
NAMES = {
    "raw": "raw `mj_step`, steps per second",
    "vec_env": "VecEnv, random actions",
    "rollouts": "rollouts with a policy per task",
    "meta_iteration/no_line_search": "meta-iteration, `line_search=False, sub_sampling_factor=4`",
    "meta_iteration/default": "meta-iteration, `line_search=True`",
    "meta_iteration/one_task_at_a_time": "the same, learning from one task at a time",
    "meta_iteration/dummy_one_task_at_a_time": "the same with SB3's DummyVecEnv",
    "meta_iteration/subproc_one_task_at_a_time": "the same with SB3's SubprocVecEnv",
}
Row = dict[str, Any]


class Timing(NamedTuple):
    """
    One timed piece of work.

    :param env_steps: environment steps done
    :param seconds: wall-clock time
    """

    env_steps: int
    seconds: float


def make_model(env: VecEnv | str, n_tasks: int, n_envs_per_task: int = N_ENVS_PER_TASK, **kwargs: Any) -> BOMRL:
    """Make BO-MRL with a network of two layers of 64 and normalised observations."""
    policy = {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5, "net_arch": [64, 64]}
    sizes = {"meta_batch_size": n_tasks, "n_envs_per_task": n_envs_per_task}
    return BOMRL(
        "MlpPolicy", env, policy_kwargs=policy, seed=0, device="cpu", **{"line_search": True, **sizes, **kwargs}
    )


def raw_physics(env_id: str, n_sims: int, n_steps: int) -> Callable[[], Timing]:
    """Return MuJoCo alone: controls in, ``mj_step``, on all cores, from the environment's initial states."""
    register_envs()
    env: Any = gym.make(env_id).unwrapped
    batch, generator = Batch(env.model, n_sims, min(n_cores(), n_sims)), np.random.default_rng(0)
    controls, positions, velocities = batch.bind("ctrl"), batch.bind("qpos"), batch.bind("qvel")

    def run() -> Timing:
        actions = generator.uniform(-1.0, 1.0, (n_steps, *controls.shape))
        start_of = env.family.initial_state([generator] * n_sims, env.init_qpos, env.init_qvel, np.zeros(n_sims))
        with mujoco_warnings_to_log():
            batch.reset(np.arange(n_sims), stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            positions[:], velocities[:] = start_of
            batch.forward(np.arange(n_sims))
            start = time.perf_counter()
            for action in actions:
                controls[:] = action
                batch.step(nstep=env.family.frame_skip)
            return Timing(n_steps * n_sims, time.perf_counter() - start)

    return run


def random_actions(env: VecEnv, n_steps: int) -> Timing:
    """Step a VecEnv with random actions drawn beforehand, from a reset."""
    shape = (n_steps, env.num_envs, *env.action_space.shape)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)
    env.reset()
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return Timing(n_steps * env.num_envs, time.perf_counter() - start)


def rollouts(model: BOMRL, n_steps: int) -> Timing:
    """Collect rollouts with one policy per task, stored and with advantages, as in a meta-iteration."""
    known = list(model.env.get_attr("test_tasks", indices=[0])[0])
    tasks = (known * model.meta_batch_size)[: model.meta_batch_size]
    collector = model.make_collector(model.env, np.random.default_rng(0))
    spaces = model.observation_space, model.action_space
    buffer = model.rollout_buffer_class(n_steps, *spaces, device="cpu", n_envs=model.env.num_envs)
    params = stack(model.actor.params(), len(tasks))
    start = time.perf_counter()
    with torch_threads(1):
        rollout = collector.collect(tasks, params, buffer)
    return Timing(rollout.rewards.numel(), time.perf_counter() - start)


def meta_iteration(model: BOMRL) -> Timing:
    """Call ``learn`` for one meta-iteration, everything included."""
    start = time.perf_counter()
    model.learn(1, log_interval=None)
    return Timing(int(model.num_timesteps), time.perf_counter() - start)


def interleaved(pieces: dict[str, Callable[[], Timing]], n_repetitions: int) -> dict[str, list[Timing]]:
    """Time every piece once per round, after one round to warm up."""
    timings: dict[str, list[Timing]] = {name: [] for name in pieces}
    for number in range(n_repetitions + 1):
        for name, piece in pieces.items():
            timing = piece()
            if number:
                timings[name].append(timing)
    return timings


def rates(timings: dict[str, list[Timing]]) -> dict[str, float]:
    """Return the median of the environment steps per second of every piece."""
    return {name: statistics.median(t.env_steps / t.seconds for t in values) for name, values in timings.items()}


def rows_of(timings: dict[str, list[Timing]], **common: Any) -> list[Row]:
    """Return medians, every single time, and rates relative to the raw physics of the same rounds."""
    found = rates(timings)
    return [
        {
            **common,
            "what": name,
            "env_steps_per_second": round(found[name], 1),
            "of_raw": round(found[name] / found["raw"], 3),
            "all_seconds": [round(timing.seconds, 4) for timing in values],
        }
        for name, values in timings.items()
    ]


def sizes(env: str, n_tasks: int, n_steps: int, n_repetitions: int) -> list[Row]:
    """Compare raw physics, VecEnv, rollouts and meta-iterations."""
    models = {name: make_model(ENV_IDS[env], n_tasks, n_steps=n_steps, **variant) for name, variant in VARIANTS.items()}
    first = next(iter(models.values()))
    pieces: dict[str, Callable[[], Timing]] = {
        "raw": raw_physics(ENV_IDS[env], first.n_envs, n_steps),
        "vec_env": lambda: random_actions(first.env, n_steps),
        "rollouts": lambda: rollouts(first, n_steps),
        **{name: lambda model=model: meta_iteration(model) for name, model in models.items()},
    }
    return rows_of(interleaved(pieces, n_repetitions), part="sizes", env=env, n_tasks=n_tasks)


def baselines(env: str, n_tasks: int, n_steps: int, n_repetitions: int) -> list[Row]:
    """
    Compare with SB3's VecEnvs and with learning from one task at a time.

    As many processes as environments would not fit in memory: SB3's VecEnvs have fewer, which play more episodes each.
    """
    env_id = ENV_IDS[env]
    models = {name: make_model(env_id, n_tasks, n_steps=n_steps) for name in ("default", "one_task_at_a_time")}
    for backend, n_envs in {"dummy": 5 * n_tasks, "subproc": N_SUBPROC}.items():
        per_task = max(1, n_envs // n_tasks)
        venv = make_meta_vec_env(env_id, n_envs, backend=backend, seed=0)  # type: ignore[arg-type]
        longer = n_steps * N_ENVS_PER_TASK // per_task
        models[f"{backend}_one_task_at_a_time"] = make_model(venv, n_tasks, per_task, n_steps=longer)
    for name, model in models.items():
        if name != "default":
            model.tasks_per_chunk = 1
    pieces: dict[str, Callable[[], Timing]] = {"raw": raw_physics(env_id, models["default"].n_envs, n_steps // 4)}
    pieces |= {f"meta_iteration/{name}": lambda model=model: meta_iteration(model) for name, model in models.items()}
    return rows_of(interleaved(pieces, n_repetitions), part="baselines", env=env, n_tasks=n_tasks)


def memory(env: str, n_tasks: int, n_steps: int) -> list[Row]:
    """Measure the peak resident memory of one meta-iteration, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak_mb, (ENV_IDS[env], n_tasks, n_steps))
    return [{"part": "memory", "env": env, "n_tasks": n_tasks, "what": "peak_memory", "peak_mb": peak}]


def _peak_mb(env_id: str, n_tasks: int, n_steps: int) -> int:
    """Largest resident set in MiB; the solvers' numbers of steps change the time, not the peak."""
    few = {"n_inner_steps": 2, "hypergradient_cg_max_steps": 2, "cg_max_steps": 2}
    make_model(env_id, n_tasks, n_steps=n_steps, **few).learn(1, log_interval=None)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # Linux counts in KiB


def merge(path: Path, new: list[Row], command: str) -> None:
    """Replace the rows of the same part, environment and size, and write the file."""
    source = provenance(command)
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {tuple(str(row[name]) for name in ("part", "env", "n_tasks", "what")): row for row in old}
    for row in new:
        key = tuple(str(row[name]) for name in ("part", "env", "n_tasks", "what"))
        rows[key] = {**row, "command": command, "commit": source["commit"], "hardware": source["hardware"]}
    write_json(path, {"versions": source["versions"], "rows": [rows[key] for key in sorted(rows)]})


def table(rows: list[Row], n_tasks: int = 20) -> str:
    """Return the rates of one size, as fractions of the raw physics of the same rounds, in Markdown."""
    lines = ["| | " + " | ".join(ENV_IDS) + " |", "|---" * (len(ENV_IDS) + 1) + "|"]
    for what, name in NAMES.items():
        part = "baselines" if what.endswith("one_task_at_a_time") else "sizes"
        found = {row["env"]: row for row in rows if (row["part"], row["what"], row["n_tasks"]) == (part, what, n_tasks)}
        form = "{env_steps_per_second:,.0f}" if what == "raw" else "{of_raw:.2f}"
        lines.append(f"| {name} | " + " | ".join(form.format(**found[env]) for env in ENV_IDS) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, and write the table into the documentation's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=tuple(ENV_IDS), nargs="+", default=list(ENV_IDS))
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 20, 40], help="numbers of tasks")
    parser.add_argument("--n-steps", type=int, default=200, help="per phase and environment")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    args = parser.parse_args()
    command = f"python -m benchmarks.throughput {' '.join(sys.argv[1:])}".strip()
    for env in () if args.table_only else args.env:
        for n_tasks in args.tasks:
            merge(PATH, sizes(env, n_tasks, args.n_steps, args.repetitions), command)
        merge(PATH, baselines(env, 20, args.n_steps, args.repetitions), command)
        merge(PATH, memory(env, max(args.tasks), args.n_steps), command)
    text = table(json.loads(PATH.read_text())["rows"])
    print(text)
    write_text(FIGURES / "throughput.md", text)


if __name__ == "__main__":
    main()
