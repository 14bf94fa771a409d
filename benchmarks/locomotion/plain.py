"""Methods that are no meta-algorithms: one policy for all tasks, the oracle, RL²."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.locomotion.iteration_log import IterationLog
from benchmarks.locomotion.methods import (
    EPISODES_PER_TRIAL,
    METHODS,
    N_ENVS,
    N_TRIALS,
    env_id,
    make_model,
    plain_settings,
)
from benchmarks.locomotion.scoring import (
    N_ENVS_PER_TASK,
    Plan,
    choose_tasks,
    make_test_env,
    physics,
    score_adaptation,
    score_trials,
)
from sb3_bomrl import TaskObservationWrapper, TaskSamplerWrapper, make_trial_vec_env
from sb3_bomrl.policies.extractors import update_normalizers
from sb3_bomrl.rl2.rl2 import RL2
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.types import Task


class NormalizedTRPO(TRPO):
    """TRPO whose policy's ``NormalizedFlattenExtractor`` follows the observations, as in the meta-algorithms."""

    def train(self) -> None:
        """Update the policy, then the statistics, so that ratios are of one and the same normalisation."""
        super().train()
        update_normalizers(self.policy, th.as_tensor(self.rollout_buffer.observations))


class NormalizedRL2(RL2):
    """The same for RL²."""

    def train(self) -> None:
        """Update the policy, then the statistics."""
        super().train()
        update_normalizers(self.policy, th.as_tensor(self.rollout_buffer.observations))


class PlainLearner:
    """
    An algorithm of sb3-contrib on environments that draw a new task at every episode, or trial.

    It is saved where it is evaluated; a run that is killed goes on from there, with other random numbers.

    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param family: name of a task family
    :param settings: of the method, in the form of a meta-algorithm's
    :param seed: of everything
    :param timesteps: environment steps of training; as many whole rollouts as fit
    :param folder: of the saved model
    :param n_threads: physics threads
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
        self.kind, self.family, self.settings, self.seed = METHODS[method].kind, family, settings, seed
        self.saved, self.n_threads = folder / "model.zip", n_threads
        env = self._train_env()
        algorithm = NormalizedRL2 if self.kind == "rl2" else NormalizedTRPO
        if self.saved.exists():
            self.model = algorithm.load(self.saved, env=env, device="cpu")
        else:
            policy = "MlpLstmPolicy" if self.kind == "rl2" else "MlpPolicy"
            self.model = algorithm(policy, env, seed=seed, device="cpu", **plain_settings(method, settings))
        self._steps = self.model.n_steps * env.num_envs
        self.n_iterations = max(1, timesteps // self._steps)
        self.log = IterationLog(folder / "iterations.jsonl", self.n_done)

    def _train_env(self) -> VecEnv:
        if self.kind == "rl2":
            kwargs = physics(self.family, self.n_threads)
            return make_trial_vec_env(env_id(self.family), N_TRIALS, EPISODES_PER_TRIAL, self.seed, kwargs)
        return make_vec_env(partial(make_task_env, self.family, self.kind == "oracle"), N_ENVS, seed=self.seed)

    @property
    def n_done(self) -> int:
        """Rollouts so far."""
        return self.model.num_timesteps // self._steps

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.model.num_timesteps

    def train(self, until: int) -> None:
        """
        Go on to a rollout, and save.

        :param until: its number
        """
        if self.n_done >= until:
            return
        start = time.perf_counter()
        self.model.learn((until - self.n_done) * self._steps, log_interval=10**9, reset_num_timesteps=False)
        self.log.add(until, time.perf_counter() - start, {})
        self.save(self.saved)

    def score(self, plan: Plan) -> dict[str, Any]:
        """
        Scores of the policy as it is; it adapts as the method says.

        :param plan: how
        :return: see :func:`~benchmarks.locomotion.scoring.score_adaptation`
        """
        tasks = choose_tasks(self.family, plan.max_tasks)
        return score_plain(self.model, self.kind, self.family, self.settings, tasks, plan, self.n_threads)

    def save(self, path: Path) -> None:
        """
        Save the model.

        :param path: the file
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model.save)


def score_plain(
    model: Any,
    kind: str,
    family: str,
    settings: dict[str, Any],
    tasks: Sequence[Task],
    plan: Plan,
    n_threads: int = 1,
) -> dict[str, Any]:
    """
    Scores of a policy of sb3-contrib; it adapts as its kind says.

    :param model: the trained algorithm
    :param kind: ``"multitask"``, ``"oracle"`` or ``"rl2"``
    :param family: name of a task family
    :param settings: of the method, in the form of a meta-algorithm's
    :param tasks: test tasks
    :param plan: how
    :param n_threads: physics threads
    :return: see :func:`~benchmarks.locomotion.scoring.score_adaptation`
    """
    if kind == "rl2":
        return score_trials(model, family, tasks, plan, n_threads)
    if kind == "oracle":
        plan = plan._replace(n_adaptations=0)
        env = make_vec_env(partial(make_task_env, family, True), len(tasks) * N_ENVS_PER_TASK)
    else:
        env = make_test_env(family, len(tasks), n_threads)
    adapts = make_model("bomrl-alg1", env, {**settings, "meta_batch_size": 1}, model.seed)
    adapts.policy.load_state_dict(model.policy.state_dict())
    try:
        return score_adaptation(adapts, env, tasks, plan)
    finally:
        env.close()


def make_task_env(family: str, shows_task: bool) -> gym.Env:
    """
    :param family: name of a task family
    :param shows_task: whether the task is observed
    :return: an environment that draws a task at every reset
    """
    env: gym.Env = TaskSamplerWrapper(gym.make(env_id(family)))
    return TaskObservationWrapper(env) if shows_task else env
