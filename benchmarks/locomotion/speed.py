"""Seconds of training per environment step, with methods that take turns: a slow hour of the machine is everybody's."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.locomotion.learners import Learner
from benchmarks.locomotion.methods import TRAINED, settings_of
from benchmarks.locomotion.report import speed_path
from benchmarks.locomotion.runs import PACKAGES, make_learner
from benchmarks.provenance import machine, provenance, write_json

TIMESTEPS = 10**9
"""A run that is never finished: only its first iterations are made."""


def measure(
    methods: Sequence[str],
    family: str,
    root: Path,
    command: str,
    n_rounds: int = 7,
    n_threads: int = 1,
    overrides: dict[str, Any] | None = None,
) -> Path:
    """
    One iteration of every method after the other, several times; the first round warms up and is not counted.

    :param methods: keys of :data:`~benchmarks.locomotion.methods.METHODS`, of those that train
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :param root: folder of the results
    :param command: what to name as the command in the file
    :param n_rounds: rounds that are counted
    :param n_threads: physics threads
    :param overrides: settings other than the configuration files'
    :return: the file
    :raises ValueError: for a method that does not train
    """
    untrained = [method for method in methods if method not in TRAINED]
    if untrained:
        raise ValueError(f"methods must be some that train, got {', '.join(untrained)}")
    with tempfile.TemporaryDirectory() as folder:
        learners: dict[str, Learner] = {}
        for method in methods:
            settings = {**settings_of(method, family), **(overrides or {})}
            learners[method] = make_learner(method, family, settings, 0, TIMESTEPS, Path(folder) / method, n_threads)
        for i in range(n_rounds + 1):
            for method, learner in learners.items():
                learner.train(i + 1)
                print(f"{family} {method}, iteration {i}: {learner.log.entries[-1]['seconds']:.2f} s", flush=True)
        rows = [_row(method, learner) for method, learner in learners.items()]
    path = speed_path(root, family)
    head = {"provenance": provenance(command, machine(), PACKAGES), "n_threads": n_threads}
    return write_json(path, {**head, "overrides": overrides or {}, "rows": rows})


def _row(method: str, learner: Learner) -> dict[str, Any]:
    seconds = [entry["seconds"] for entry in learner.log.entries[1:]]
    steps = learner.env_steps // learner.n_done
    return {"method": method, "env_steps": steps, "seconds": np.round(seconds, 4).tolist()}
