"""A callback that prints lines of progress, for logs and terminals without a progress bar."""

import time
from datetime import timedelta

from stable_baselines3.common.callbacks import BaseCallback

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_positive
from sb3_bomrl.rollout.returns import episode_returns


class ProgressLineCallback(BaseCallback):
    """
    Print a line of progress at regular intervals, and one at the end.

    The line holds the environment steps done, their rate, the time left and, for a :class:`~sb3_bomrl.MetaAlgorithm`,
    the mean returns of the last meta-iteration::

        500,000 of 2,000,000 steps (25%), 9,630 steps/s, 0:02:36 left, return -220.3 before and -180.2 after adaptation

    :param interval: seconds between lines
    :raises ValueError: if ``interval`` is not above 0
    """

    def __init__(self, interval: float = 30.0) -> None:
        check_positive("interval", interval)
        super().__init__()
        self.interval = interval

    def _on_training_start(self) -> None:
        self._start_time = self._last_time = time.monotonic()
        self._start_steps = self.model.num_timesteps
        self._phases: list[float] = []
        self._returns = ""

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self._last_time >= self.interval:
            self._last_time = now
            self._print(now)
        return True

    def _on_rollout_end(self) -> None:
        if not isinstance(self.model, MetaAlgorithm):
            return
        self._phases.append(float(episode_returns(self.locals["rollout"]).mean()))
        n_waves = max(1, self.model.meta_batch_size // self.model.n_envs)
        if len(self._phases) == n_waves * (self.model.n_support_phases + 1):
            before, after = (sum(part) / n_waves for part in (self._phases[:n_waves], self._phases[-n_waves:]))
            self._returns = f", return {before:.1f} before and {after:.1f} after adaptation"
            self._phases = []

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self._start_steps:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        done, total = self.model.num_timesteps, self.model._total_timesteps
        rate = (done - self._start_steps) / max(now - self._start_time, 1e-9)
        left = timedelta(seconds=round(max(total - done, 0) / rate))
        line = f"{done:,} of {total:,} steps ({done / total:.0%}), {rate:,.0f} steps/s, {left} left"
        print(f"{line}{self._returns}", flush=True)
