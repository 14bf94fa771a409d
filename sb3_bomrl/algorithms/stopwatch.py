"""Time per phase of a meta-iteration."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from stable_baselines3.common.logger import Logger


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
