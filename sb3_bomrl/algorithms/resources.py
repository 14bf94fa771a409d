"""Time and threads."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch as th
from stable_baselines3.common.logger import Logger


@contextmanager
def rollout_threads(n_threads: int = 1) -> Iterator[None]:
    """
    Few torch threads while rollouts run.

    The policy's matrices are small there, and the cores belong to the simulator; the learning phase keeps the number of
    threads that the user or torch chose.

    :param n_threads: torch threads meanwhile
    """
    threads = th.get_num_threads()
    th.set_num_threads(n_threads)
    try:
        yield
    finally:
        th.set_num_threads(threads)


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
