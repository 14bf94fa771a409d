"""
Peak memory of one meta-iteration, in a process of its own.

    python -m benchmarks.peak_memory [--env-id bomrl/AntVel-v0] [--n-tasks 40] [--n-envs-per-task 20] [--n-steps 200]

Prints one line of JSON. How many steps the inner solver and conjugate gradients take changes the time, not the peak, so
they take two each.
"""

import argparse
import json
import resource

import torch as th

from benchmarks.throughput_models import make_model
from sb3_bomrl.algorithms import meta_algorithm


def peak_mb() -> float:
    """Largest resident set of this process so far, in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class PeakWatch(meta_algorithm.Stopwatch):
    """Notes the peak at the end of every phase."""

    peaks: list[tuple[str, float]] = []

    def __call__(self, phase: str):
        timed = super().__call__(phase)

        class _Timed:
            def __enter__(self):
                return timed.__enter__()

            def __exit__(self, *error):
                PeakWatch.peaks.append((phase, round(peak_mb())))
                return timed.__exit__(*error)

        return _Timed()


def main() -> None:
    """Run one meta-iteration and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="bomrl/AntVel-v0")
    parser.add_argument("--n-tasks", type=int, default=40)
    parser.add_argument("--n-envs-per-task", type=int, default=20)
    parser.add_argument("--n-steps", type=int, default=200)
    args = parser.parse_args()
    short = {"n_inner_steps": 2, "hypergradient_cg_max_steps": 2, "cg_max_steps": 2}
    model = make_model(args.env_id, args.n_tasks, args.n_envs_per_task, n_steps=args.n_steps, **short)
    start = round(peak_mb())
    meta_algorithm.Stopwatch = PeakWatch
    model.learn(1, log_interval=None)
    result = {**vars(args), "n_samples": args.n_tasks * args.n_envs_per_task * args.n_steps, "start_mb": start}
    result |= {"after_phase_mb": PeakWatch.peaks, "peak_mb": round(peak_mb()), "torch_threads": th.get_num_threads()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
