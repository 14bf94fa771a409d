"""What a run trains: a meta-algorithm, which goes on exactly where it was killed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.locomotion.iteration_log import IterationLog, LogIterations
from benchmarks.locomotion.methods import METHODS, env_id, make_model
from benchmarks.locomotion.scoring import Plan, choose_tasks, make_test_env, physics, score_adaptation
from sb3_bomrl import ExactCheckpointCallback, load_checkpoint, make_meta_vec_env
from sb3_bomrl.zoo import REGISTRY

SAVE_FREQ = 1
"""Meta-iterations between checkpoints."""


class Learner(Protocol):
    """
    A method in training; iterations are whatever it counts.

    :param log: seconds and causes of every iteration
    """

    log: IterationLog

    @property
    def n_iterations(self) -> int:
        """Iterations of the whole run."""

    @property
    def n_done(self) -> int:
        """Iterations so far."""

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""

    def train(self, until: int) -> None:
        """Go on to an iteration."""

    def score(self, plan: Plan) -> dict[str, Any]:
        """Scores of the model as it is."""

    def save(self, path: Path) -> None:
        """Save the policy."""


class MetaLearner:
    """
    A meta-algorithm, trained or not, with exact checkpoints.

    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param family: name of a task family
    :param settings: of the method
    :param seed: of everything
    :param timesteps: environment steps of training; as many whole meta-iterations as fit
    :param folder: of the checkpoints
    :param n_threads: physics threads
    :raises ValueError: if the folder holds checkpoints of a run of another length
    """

    def __init__(
        self,
        method: str,
        family: str,
        settings: dict[str, Any],
        seed: int,
        timesteps: int,
        folder: Path,
        n_threads: int = 1,
    ) -> None:
        self.family, self.folder, self.n_threads = family, folder, n_threads
        env = make_meta_vec_env(env_id(family), settings["n_envs"], seed=seed, env_kwargs=physics(family, n_threads))
        algorithm = REGISTRY[METHODS[method].algorithm]
        interrupted = load_checkpoint(algorithm, folder, env, device="cpu")
        self.model = make_model(method, env, settings, seed) if interrupted is None else interrupted
        n_phases = self.model.n_support_phases + 1
        n_waves = max(1, self.model.meta_batch_size // env.num_envs)
        self._steps = n_phases * n_waves * settings["n_steps"] * env.num_envs
        is_trained = METHODS[method].kind != "untrained"
        self.n_iterations = max(1, timesteps // self._steps) if is_trained else 0
        if interrupted is not None and interrupted._total_timesteps != self._total:
            raise ValueError(
                f"timesteps must be {interrupted._total_timesteps} to go on with the run in {folder}, got {timesteps}"
            )
        self.log = IterationLog(folder / "iterations.jsonl", self.n_done)

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
        """
        Go on to a meta-iteration, as one run whatever the number of calls: schedules follow the whole run.

        :param until: its number
        :raises SystemExit: after a SIGINT or SIGTERM, when the meta-iteration is complete and saved
        """
        if self.n_done >= until:
            return
        checkpoints = ExactCheckpointCallback(self.folder, SAVE_FREQ)
        callbacks = [LogIterations(self.log, until), checkpoints]
        if self.n_done == 0:
            self.model.learn(self._total, callbacks, log_interval=None)
        else:
            self.model.resume(callbacks, log_interval=None)
        if checkpoints.interrupted_by is not None:
            sys.exit(128 + checkpoints.interrupted_by)

    def score(self, plan: Plan) -> dict[str, Any]:
        """
        Scores of the meta-policy as it is.

        :param plan: how
        :return: see :func:`~benchmarks.locomotion.scoring.score_adaptation`
        """
        tasks = choose_tasks(self.family, plan.max_tasks)
        env = make_test_env(self.family, len(tasks), self.n_threads)
        try:
            return score_adaptation(self.model, env, tasks, plan)
        finally:
            env.close()

    def save(self, path: Path) -> None:
        """
        Save the model.

        :param path: the file
        """
        self.model.save(path)


def evaluation_points(n_iterations: int, n_segments: int) -> Sequence[int]:
    """
    :param n_iterations: of the whole run
    :param n_segments: evaluations after the start
    :return: iterations to evaluate at, equally spaced, the first and the last one among them
    """
    return sorted({round(n_iterations * i / n_segments) for i in range(n_segments + 1)})
