"""How the time of a meta-iteration grows with tasks, environments, network width and inner steps."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.throughput_models import ENV_IDS, PHASES, make_model, meta_iteration

AXES: dict[str, tuple[int, ...]] = {
    "n_tasks": (1, 2, 4, 8, 16, 32, 64),
    "n_envs_per_task": (5, 10, 20, 40, 80),
    "width": (16, 32, 64, 128, 256),
    "n_inner_steps": (5, 10, 20, 50, 100),
}
BASE = {"n_tasks": 8, "n_envs_per_task": 20, "width": 64, "n_inner_steps": 50}
N_REPETITIONS = 3
LINEAR_OR_LESS = ("n_tasks", "n_envs_per_task", "n_inner_steps")
"""Axes along which the learning phase may grow no faster than linearly; the weights of a layer are width squared."""


def curves(n_steps: int) -> Iterator[list[dict[str, Any]]]:
    """One list of rows per axis, on HalfCheetah; medians of three after one to warm up."""
    for axis, values in AXES.items():
        rows = []
        for value in values:
            sizes = {**BASE, axis: value}
            model = make_model(ENV_IDS["HalfCheetah"], **sizes, n_steps=n_steps)
            timings = [meta_iteration(model) for _ in range(N_REPETITIONS + 1)][1:]
            model.env.close()
            phases = {p: statistics.median(t.phases[p] for t in timings if t.phases) for p in PHASES}
            rows.append(
                {
                    "part": "scaling",
                    "env": "HalfCheetah",
                    "what": "meta_iteration/default",
                    "axis": axis,
                    "value": value,
                    **sizes,
                    "n_steps": n_steps,
                    "repetitions": N_REPETITIONS,
                    "seconds": round(statistics.median(t.seconds for t in timings), 4),
                    "learning_seconds": round(sum(phases[p] for p in PHASES if p != "rollout"), 4),
                    "phases": {p: round(s, 4) for p, s in phases.items()},
                }
            )
            last = rows[-1]
            print(f"  {axis} {value}: {last['seconds']:.2f} s, learning {last['learning_seconds']:.2f} s", flush=True)
        yield rows


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of growth: slope of log time against log size, over the larger half of the sizes."""
    half = len(values) // 2
    return float(np.polyfit(np.log(values[half:]), np.log(seconds[half:]), 1)[0])
