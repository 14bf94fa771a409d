"""
Where the time of a meta-iteration goes.

    python -m benchmarks.iteration_time [--env-id ...] [--n-tasks 20] [--n-envs-per-task 20] [--n-iterations 5]

Writes ``benchmarks/results/iteration_time.json``: medians over the iterations after the first, with the hardware and
versions.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import torch as th
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_bomrl import BOMRL
from sb3_bomrl.policies import NormalizedFlattenExtractor

PHASES = ("rollout", "adapt", "hypergradient", "outer")
RESULT = Path(__file__).parent / "results" / "iteration_time.json"


class Recorder(KVWriter):
    """Keeps every row that the logger dumps."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        """Nothing is open."""


def measure(env_id: str, n_tasks: int, n_envs_per_task: int, n_iterations: int) -> dict:
    """Run a few meta-iterations; medians in seconds, and environment steps per second."""
    policy_kwargs = {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5}
    model = BOMRL(
        "MlpPolicy",
        env_id,
        meta_batch_size=n_tasks,
        n_envs_per_task=n_envs_per_task,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )
    recorder = Recorder()
    model.set_logger(Logger(None, [recorder]))
    steps = 2 * model.n_steps * model.n_envs
    model.learn((n_iterations + 1) * steps)
    rows = recorder.rows[1:]
    seconds = {phase: statistics.median(row[f"time/{phase}"] for row in rows) for phase in PHASES}
    total = statistics.median(sum(row[f"time/{phase}"] for phase in PHASES) for row in rows)
    return {"env_steps": steps, "seconds": seconds, "total_seconds": total, "env_steps_per_second": steps / total}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="bomrl/HalfCheetahVel-v0")
    parser.add_argument("--n-tasks", type=int, default=20)
    parser.add_argument("--n-envs-per-task", type=int, default=20)
    parser.add_argument("--n-iterations", type=int, default=5)
    args = parser.parse_args()
    result = {
        "command": "python -m benchmarks.iteration_time " + " ".join(sys.argv[1:]),
        **vars(args),
        **measure(args.env_id, args.n_tasks, args.n_envs_per_task, args.n_iterations),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cores": os.cpu_count(),
        "torch_threads": th.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "mujoco", "gymnasium", "stable-baselines3")},
    }
    for phase, seconds in result["seconds"].items():
        print(f"{phase:14s} {seconds:7.2f} s  {100 * seconds / result['total_seconds']:5.1f} %")
    print(f"{'total':14s} {result['total_seconds']:7.2f} s  {result['env_steps_per_second']:,.0f} env steps/s")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULT.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(RESULT)


if __name__ == "__main__":
    main()
