"""Methods that are no meta-algorithms: one policy for all tasks, the oracle, RL²."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.methods import EPISODES_PER_TRIAL, METHODS, N_ENVS, N_TRIALS, make_model, plain_settings
from benchmarks.records import Stopwatch
from benchmarks.scoring import (
    N_ENVS_PER_TASK,
    Plan,
    Scores,
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


class _Normalized:
    """Lets the policy's ``NormalizedFlattenExtractor`` follow the observations, as in the meta-algorithms."""

    def train(self) -> None:
        """Update the policy, then the statistics, so that ratios are of one and the same normalisation."""
        super().train()
        update_normalizers(self.policy, th.as_tensor(self.rollout_buffer.observations))


class NormalizedTRPO(_Normalized, TRPO):
    """TRPO with it."""


class NormalizedRL2(_Normalized, RL2):
    """RL² with it."""


class PlainLearner:
    """
    An algorithm of sb3-contrib on environments that draw a new task at every episode, or trial.

    It is saved where it is evaluated; a run that is killed goes on from there, with other random numbers.
    """

    def __init__(
        self, method: str, env_id: str, settings: dict[str, Any], seed: int, env_steps: int, folder: Path
    ) -> None:
        self.kind, self.env_id, self.settings, self.seed = METHODS[method].kind, env_id, settings, seed
        self._saved = folder / "model.zip"
        env = self._train_env()
        algorithm = NormalizedRL2 if self.kind == "rl2" else NormalizedTRPO
        if self._saved.exists():
            self.model = algorithm.load(self._saved, env=env, device="cpu")
        else:
            policy = "MlpLstmPolicy" if self.kind == "rl2" else "MlpPolicy"
            self.model = algorithm(policy, env, seed=seed, device="cpu", **plain_settings(method, settings))
        self._steps = self.model.n_steps * env.num_envs
        self.n_iterations = max(1, env_steps // self._steps)
        self.stopwatch = Stopwatch(folder / "seconds.txt", self.n_done)

    def _train_env(self) -> VecEnv:
        if self.kind == "rl2":
            return make_trial_vec_env(self.env_id, N_TRIALS, EPISODES_PER_TRIAL, self.seed, physics(self.env_id))
        return make_vec_env(partial(make_task_env, self.env_id, self.kind == "oracle"), N_ENVS, seed=self.seed)

    @property
    def n_done(self) -> int:
        """Rollouts so far."""
        return self.model.num_timesteps // self._steps

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.model.num_timesteps

    def train(self, until: int) -> None:
        """Go on to a rollout, and save."""
        n_missing = until - self.n_done
        if n_missing <= 0:
            return
        start = time.perf_counter()
        self.model.learn(n_missing * self._steps, log_interval=10**9, reset_num_timesteps=False)
        for _ in range(n_missing):
            self.stopwatch.add((time.perf_counter() - start) / n_missing)
        self._saved.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._saved, self.model.save)

    def score(self, plan: Plan) -> Scores:
        """Score the policy as it is; it adapts as the method says."""
        tasks = choose_tasks(self.env_id, plan.max_tasks)
        if self.kind == "rl2":
            return score_trials(self.model, self.env_id, tasks, plan)
        if self.kind == "oracle":
            plan = plan._replace(n_adaptations=0)
            env = make_vec_env(partial(make_task_env, self.env_id, True), len(tasks) * N_ENVS_PER_TASK)
        else:
            env = make_test_env(self.env_id, len(tasks))
        adapts = make_model("bomrl-alg1", env, {**self.settings, "meta_batch_size": 1}, self.seed)
        adapts.policy.load_state_dict(self.model.policy.state_dict())
        try:
            return score_adaptation(adapts, env, tasks, plan)
        finally:
            env.close()


def make_task_env(env_id: str, shows_task: bool) -> gym.Env:
    """Make an environment that draws a task at every reset, and shows it in the observation or not."""
    env: gym.Env = TaskSamplerWrapper(gym.make(env_id))
    return TaskObservationWrapper(env) if shows_task else env
