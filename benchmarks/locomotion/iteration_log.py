"""What every iteration of a run took and logged, in a file that a killed run goes on with."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.saving.files import write_atomically

CAUSES = (
    "hypergradient/cg_residual",
    "hypergradient/negative_curvature_count",
    "hypergradient/norm",
    "inner/n_steps",
    "inner/kl",
    "inner/kl_limit_count",
    "inner/gradient_norm",
    "outer/kl",
    "meta/pre_adapt_return",
    "meta/post_adapt_return",
)
"""Where a method that loses can be seen to lose."""


class IterationLog:
    """
    A line of JSON per iteration, written before the checkpoint of that iteration.

    :param path: the file
    :param n_done: iterations of the checkpoint that the run goes on from; lines of later ones are dropped
    """

    def __init__(self, path: Path, n_done: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = [entry for entry in _read(path) if entry["iteration"] <= n_done]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        write_atomically(path, lambda file: file.write(text.encode()))

    def add(self, iteration: int, seconds: float, logged: Mapping[str, Any]) -> None:
        """
        Append a line.

        :param iteration: its number, from 1
        :param seconds: that it took
        :param logged: the logger's values
        """
        causes = {name: float(logged[name]) for name in CAUSES if name in logged}
        self.entries.append({"iteration": iteration, "seconds": seconds, "causes": causes})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.entries[-1]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def seconds(self) -> float:
        """
        :return: seconds of training so far
        """
        return sum(entry["seconds"] for entry in self.entries)

    def causes(self, after: int) -> dict[str, float]:
        """
        :param after: number of an iteration
        :return: mean over the later iterations of what they logged
        """
        causes = [entry["causes"] for entry in self.entries if entry["iteration"] > after]
        names = causes[0] if causes else {}
        return {name: round(float(np.mean([entry[name] for entry in causes])), 5) for name in names}


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines of the file; the process may have been killed in the middle of the last one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


class LogIterations(BaseCallback):
    """
    Log every meta-iteration, and end the training at one of them.

    :param log: where
    :param stop_at: number of the last meta-iteration
    """

    def __init__(self, log: IterationLog, stop_at: int) -> None:
        super().__init__()
        self.log, self.stop_at = log, stop_at

    def _on_training_start(self) -> None:
        assert isinstance(self.model, MetaAlgorithm)
        self.model.add_iteration_hook(self)
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def on_iteration_end(self) -> bool:
        """
        Write the line.

        :return: whether to go on
        """
        assert isinstance(self.model, MetaAlgorithm)
        now = time.perf_counter()
        self.log.add(self.model.n_meta_iterations, now - self._start, self.logger.name_to_value)
        self._start = now
        return self.model.n_meta_iterations < self.stop_at

    def on_learn_end(self) -> None:
        """Nothing to give back."""
