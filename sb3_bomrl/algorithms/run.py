"""One run of ``learn``: its tasks, collector, callback and hooks, and the time that its phases take."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.watch import FailureWatch
from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.tasks import TaskSampler
from sb3_bomrl.types import Task


class IterationHook(Protocol):
    """An object that is told when meta-iterations end, see :meth:`~sb3_bomrl.MetaAlgorithm.add_iteration_hook`."""

    def on_iteration_end(self) -> bool:
        """Called between two meta-iterations; returning ``False`` ends the run."""

    def on_learn_end(self) -> None:
        """Called however the run ends, by an exception too."""


class Run:
    """
    The tasks, the collector, the callback and the hooks of one call of ``learn``.

    :param env: training environment
    :param callback: SB3's callback
    :param collector: plays the policies
    :param normalizer: holds the statistics of a ``VecNormalize`` fixed during a meta-iteration
    """

    def __init__(
        self, env: VecEnv, callback: BaseCallback, collector: RolloutCollector, normalizer: FrozenNormalizer
    ) -> None:
        self.env = env
        self.callback = callback
        self.collector = collector
        self.normalizer = normalizer
        self.hooks: list[IterationHook] = []
        self.watch = FailureWatch()
        self._tasks = TaskSampler(env)

    def sample_tasks(self, n_tasks: int, generator: np.random.Generator) -> list[Task]:
        """
        Draw the tasks of a meta-iteration.

        :param n_tasks: number of tasks
        :param generator: source of randomness
        :return: tasks
        """
        return self._tasks.sample(n_tasks, generator)

    def goes_on(self) -> bool:
        """
        Tell every hook that a meta-iteration is complete.

        :return: whether all of them let the run go on
        """
        return False not in [hook.on_iteration_end() for hook in self.hooks]

    def end(self) -> None:
        """Tell every hook that the run is over, and give the environment back as it was."""
        self.normalizer.release()
        with ExitStack() as stack:  # each of them is told, also where another one fails
            for hook in reversed(self.hooks):
                stack.callback(hook.on_learn_end)


class Stopwatch:
    """Wall-clock time per phase of a meta-iteration, logged as ``time/<phase>`` in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """
        Add the time of a block to a phase.

        :param phase: name of the phase
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - start

    def record(self, logger: Logger) -> None:
        """
        Write all phases to a logger.

        :param logger: SB3 logger
        """
        for phase, seconds in self._seconds.items():
            logger.record(f"time/{phase}", seconds)
            if phase == "meta_gradient":
                logger.record("time/hypergradient", seconds)  # its name in 0.1, for one more version
