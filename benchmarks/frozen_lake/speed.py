"""How long exact meta-training and a sampled meta-iteration take on one core."""

import statistics
import time
from typing import Any

from benchmarks.frozen_lake.experiments import GRIDS, N_ITERATIONS, best_settings, lakes, make_learner
from benchmarks.frozen_lake.results import load
from benchmarks.frozen_lake.sampled import make_model

FAMILY, SEED = "high_variance", 0
N_REPEATS = 5
"""Sampled meta-iterations that are timed, after one that is not."""


def measure() -> list[dict[str, Any]]:
    """
    CPU seconds of this process, which runs one thread: of a whole exact meta-training, and of a sampled meta-iteration.

    :return: one row per method; of the sampled meta-iterations the median and the largest
    """
    chosen, maps = best_settings(load("tuning")["rows"]), lakes(FAMILY, SEED)["seen"]
    rows = []
    for method in GRIDS:
        setting = chosen[FAMILY, method]
        start = time.process_time()
        make_learner(method, setting, maps, SEED).learn(N_ITERATIONS)
        exact = time.process_time() - start
        model, seconds = make_model(method, setting, FAMILY, SEED), []
        for _ in range(1 + N_REPEATS):
            start = time.process_time()
            model.learn(1, log_interval=None)
            seconds.append(time.process_time() - start)
        row = {"method": method, "setting": setting, "exact_training_seconds": round(exact, 2)}
        row |= {"sampled_iteration_seconds": round(statistics.median(seconds[1:]), 3)}
        rows.append(row | {"sampled_iteration_seconds_largest": round(max(seconds[1:]), 3)})
    return rows
