"""Few-shot evaluation of recurrent policies, which adapt by playing."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped, make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_bomrl.algorithms.evaluation import AdaptationCurve, choose_tasks
from sb3_bomrl.checks import check_non_negative, check_positive
from sb3_bomrl.rl2.trial_vec_env import TrialVecEnv
from sb3_bomrl.rl2.trial_wrapper import TrialWrapper
from sb3_bomrl.rollout.time_limit import check_episode_lengths, time_limit
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.make import check_no_vector_env, fast_backend, make_meta_vec_env


def make_trial_vec_env(
    env_id: str,
    n_envs: int,
    episodes_per_trial: int = 2,
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> VecEnv:
    """
    Make a VecEnv of trials, each of several episodes of one task.

    The families of this package are stepped all at once, see :func:`~sb3_bomrl.make_meta_vec_env`.

    :param env_id: id of a registered environment with tasks
    :param n_envs: number of environments, at least 1
    :param episodes_per_trial: episodes of one task that make up a trial
    :param seed: seeds the first reset, ``seed + i`` for environment i; ``None`` leaves the seeds to chance
    :param env_kwargs: keyword arguments of the environment
    :return: VecEnv of monitored environments, the monitor inside: it sees episodes, not trials. A ``TrialVecEnv`` where
        there is a batch to step, else a ``DummyVecEnv`` of ``TrialWrapper`` environments
    :raises ValueError: if ``n_envs`` or ``episodes_per_trial`` is no positive integer, or there are no tasks
    """
    check_positive("n_envs", n_envs, integer=True)
    if fast_backend(env_id) is not None:
        return TrialVecEnv(make_meta_vec_env(env_id, n_envs, "auto", seed, env_kwargs), episodes_per_trial)
    trial = {"episodes_per_trial": episodes_per_trial}
    make = partial(gym.make, env_id)
    return make_vec_env(
        make, n_envs, seed=seed, wrapper_class=TrialWrapper, env_kwargs=env_kwargs, wrapper_kwargs=trial
    )


def as_trial_env(env: GymEnv, episodes_per_trial: int) -> VecEnv:
    """
    Return a VecEnv of trials.

    :param env: environment with tasks, which is wrapped, or a VecEnv of ``TrialWrapper`` environments or a
        ``TrialVecEnv``, which is taken as it is
    :param episodes_per_trial: of an environment that is wrapped here
    :return: VecEnv
    :raises ValueError: for a VecEnv of anything else
    """
    check_no_vector_env("env", env)
    if isinstance(env, gym.Env):
        if not is_wrapped(env, TrialWrapper):
            env = TrialWrapper(env if is_wrapped(env, Monitor) else Monitor(env), episodes_per_trial)
        return DummyVecEnv([lambda: env])
    if not all(env.env_is_wrapped(TrialWrapper)):
        raise ValueError(
            f"env must be a VecEnv of environments in a TrialWrapper, got {env}: build it with make_trial_vec_env"
        )
    return env


def evaluate_trials(
    model: BaseAlgorithm,
    env: GymEnv,
    tasks: Sequence[Task] | None = None,
    n_adaptation_steps: int = 3,
    n_eval_episodes: int = 20,
    deterministic: bool = True,
    seed: int | None = 0,
    max_episode_steps: int | None = None,
) -> AdaptationCurve:
    """
    Measure the returns of the first, second … episode of a trial on test tasks.

    It is ``evaluate_adaptation`` for recurrent policies, which adapt by playing: k adaptations are k episodes of the
    same task before the one that is scored. The curve's ``env_steps`` counts their steps; its ``params`` are empty.

    :param model: RL², or any model whose ``predict`` takes and returns a hidden state
    :param env: environment with tasks, or a VecEnv of ``TrialWrapper`` environments, apart from the one the model
        trains in; normalised by ``VecNormalize`` where the model's is
    :param tasks: test tasks; the environment's own ``test_tasks`` if not given
    :param n_adaptation_steps: K ≥ 0; a trial has K + 1 episodes, however many it had in training
    :param n_eval_episodes: trials per task
    :param deterministic: take the most probable actions, also in the episodes that only explore
    :param seed: of episodes and actions; the system's entropy if ``None``
    :param max_episode_steps: as in :func:`~sb3_bomrl.evaluate_adaptation`
    :return: the curve, with everything per task
    :raises ValueError: if there are no tasks to test on, a number is none of the above, or an episode does not end
    """
    check_positive("n_eval_episodes", n_eval_episodes, integer=True)
    check_non_negative("n_adaptation_steps", n_adaptation_steps, integer=True)
    check_positive("max_episode_steps", max_episode_steps, integer=True, optional=True)
    vec_env = as_trial_env(env, n_adaptation_steps + 1)
    chosen = choose_tasks(vec_env, tasks)
    before = vec_env.get_attr("episodes_per_trial")
    vec_env.env_method("set_episodes_per_trial", n_adaptation_steps + 1)
    limit = time_limit(vec_env, max_episode_steps)
    shape = (n_adaptation_steps + 1, len(chosen), n_eval_episodes)
    returns, lengths = np.zeros((shape[0], shape[1] * shape[2])), np.zeros((shape[0], shape[1] * shape[2]))
    seeds = np.random.default_rng(seed)
    try:
        with th.random.fork_rng():
            th.manual_seed(int(seeds.integers(2**63)))
            for start in range(0, returns.shape[1], vec_env.num_envs):
                numbers = range(start, min(start + vec_env.num_envs, returns.shape[1]))
                vec_env.seed(int(seeds.integers(2**31 - vec_env.num_envs)))
                played_tasks = [chosen[n // n_eval_episodes] for n in numbers]
                played = _play_trials(model, vec_env, played_tasks, deterministic, limit)
                for k, episodes in enumerate(played):
                    returns[k, numbers.start : numbers.stop], lengths[k, numbers.start : numbers.stop] = episodes
    finally:
        for index, episodes_per_trial in enumerate(before):
            vec_env.env_method("set_episodes_per_trial", episodes_per_trial, indices=[index])
    returns, lengths = returns.reshape(shape), lengths.reshape(shape)
    mean_lengths = lengths.mean(2)
    env_steps = np.round(mean_lengths.cumsum(0) - mean_lengths).astype(int)
    return AdaptationCurve(chosen, returns, lengths, env_steps, [{} for _ in returns])


def _play_trials(
    model: BaseAlgorithm, vec_env: VecEnv, tasks: Sequence[Task], deterministic: bool, limit: int
) -> list[tuple[npt.NDArray, npt.NDArray]]:
    """One trial in each of the first environments: (returns, lengths) of its first, second … episodes."""
    n_envs, n_played = vec_env.num_envs, len(tasks)
    for index in range(n_envs):  # those that are left over play along, unseen
        vec_env.env_method("set_task", tasks[min(index, n_played - 1)], indices=[index])
    episodes: list[dict[int, dict[str, Any]]] = [{} for _ in range(n_played)]
    obs, state = vec_env.reset(), None
    starts, finished = np.ones(n_envs, dtype=bool), np.zeros(n_envs, dtype=bool)
    lengths = np.zeros(n_played, dtype=int)
    while not finished[:n_played].all():
        actions, state = model.predict(obs, state, starts, deterministic)  # type: ignore[arg-type]
        obs, _, starts, infos = vec_env.step(actions)
        for trial, info, is_over in zip(episodes, infos, finished, strict=False):
            if "trial_episode" in info and not is_over:
                trial[info["trial_episode"]["number"]] = info["trial_episode"]
        finished |= starts
        has_ended = np.array(["trial_episode" in info for info in infos[:n_played]])
        lengths = np.where(has_ended | finished[:n_played], 0, lengths + 1)
        check_episode_lengths(lengths, limit, tasks)
    return [
        (np.array([trial[k]["r"] for trial in episodes]), np.array([trial[k]["l"] for trial in episodes]))
        for k in range(len(episodes[0]))
    ]
