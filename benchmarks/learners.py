"""The learners of runs: meta-algorithms, which go on exactly where they were killed, and others."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.methods import METHODS, make_model
from benchmarks.records import Stopwatch
from benchmarks.scoring import Plan, Scores, choose_tasks, make_test_env, physics, score_adaptation
from sb3_bomrl import ExactCheckpointCallback, MetaAlgorithm, load_checkpoint, make_meta_vec_env
from sb3_bomrl.zoo import REGISTRY

SAVE_FREQ = 1
"""Meta-iterations between checkpoints."""


class Learner(Protocol):
    """A method in training; iterations are whatever it counts."""

    model: Any
    n_iterations: int
    stopwatch: Stopwatch

    @property
    def n_done(self) -> int:
        """Iterations so far."""

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""

    def train(self, until: int) -> None:
        """Go on to an iteration."""

    def score(self, plan: Plan) -> Scores:
        """Score the model as it is."""


def make_learner(
    method: str, env_id: str, settings: dict[str, Any], seed: int, env_steps: int, folder: Path
) -> Learner:
    """Make what trains a method, as it was left in a folder, or new."""
    if METHODS[method].kind in ("meta", "untrained"):
        return MetaLearner(method, env_id, settings, seed, env_steps, folder)
    from benchmarks.plain import PlainLearner  # needs sb3-contrib

    return PlainLearner(method, env_id, settings, seed, env_steps, folder)


class MetaLearner:
    """
    A meta-algorithm, trained or not, with exact checkpoints; the arguments are those of :func:`make_learner`.

    :raises ValueError: if the folder holds checkpoints of a run of another length
    """

    def __init__(
        self, method: str, env_id: str, settings: dict[str, Any], seed: int, env_steps: int, folder: Path
    ) -> None:
        self.env_id, self._folder = env_id, folder
        env = make_meta_vec_env(env_id, settings["n_envs"], seed=seed, env_kwargs=physics(env_id))
        interrupted = load_checkpoint(REGISTRY[METHODS[method].algorithm], folder, env, device="cpu")
        self.model = make_model(method, env, settings, seed) if interrupted is None else interrupted
        n_waves = max(1, self.model.meta_batch_size // env.num_envs)
        self._steps = (self.model.n_support_phases + 1) * n_waves * settings["n_steps"] * env.num_envs
        self.n_iterations = 0 if METHODS[method].kind == "untrained" else max(1, env_steps // self._steps)
        if interrupted is not None and interrupted._total_timesteps != self._total:
            raise ValueError(
                f"env_steps must be {interrupted._total_timesteps} to go on with the run in {folder}, got {env_steps}"
            )
        self.stopwatch = Stopwatch(folder / "seconds.txt", self.n_done)

    @property
    def _total(self) -> int:
        return self.n_iterations * self._steps

    @property
    def n_done(self) -> int:
        """Meta-iterations so far."""
        return self.model.n_meta_iterations

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.model.num_timesteps

    def train(self, until: int) -> None:
        """Go on to a meta-iteration, as one run whatever the number of calls: schedules follow the whole run."""
        if self.n_done >= until:
            return
        checkpoints = ExactCheckpointCallback(self._folder, SAVE_FREQ)
        callbacks = [_TimeAndStop(self.stopwatch, until), checkpoints]
        if self.n_done == 0:
            self.model.learn(self._total, callbacks, log_interval=None)
        else:
            self.model.resume(callbacks, log_interval=None)
        if checkpoints.interrupted_by is not None:
            sys.exit(128 + checkpoints.interrupted_by)

    def score(self, plan: Plan) -> Scores:
        """Score the meta-policy as it is."""
        tasks = choose_tasks(self.env_id, plan.max_tasks)
        env = make_test_env(self.env_id, len(tasks))
        try:
            return score_adaptation(self.model, env, tasks, plan)
        finally:
            env.close()


class _TimeAndStop(BaseCallback):
    """Time every meta-iteration, and end the training at one of them."""

    def __init__(self, stopwatch: Stopwatch, stop_at: int) -> None:
        super().__init__()
        self.stopwatch, self.stop_at = stopwatch, stop_at

    def _on_training_start(self) -> None:
        assert isinstance(self.model, MetaAlgorithm)
        self.model.add_iteration_hook(self)
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def on_iteration_end(self) -> bool:
        """Note the seconds; return whether to go on."""
        assert isinstance(self.model, MetaAlgorithm)
        now = time.perf_counter()
        self.stopwatch.add(now - self._start)
        self._start = now
        return self.model.n_meta_iterations < self.stop_at

    def on_learn_end(self) -> None:
        """Nothing to give back."""
