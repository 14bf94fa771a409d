"""From a meta-policy to a model that is adapted to one task, and the environment that it adapts in."""

from copy import copy, deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_bomrl.checks import check_positive
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.rollout.tasks import has_tasks
from sb3_bomrl.saving.normalizer import normalizes_observations
from sb3_bomrl.types import Params, Task
from sb3_bomrl.vec_env.make import check_no_vector_env


def adapt_model(
    model: Any,
    env_or_task: Any,
    n_episodes: int,
    n_adaptation_steps: int,
    seed: int | None,
    max_episode_steps: int | None,
) -> Any:
    """
    Adapt a meta-policy to one task, see :meth:`~sb3_bomrl.MetaAlgorithm.adapt`.

    :param model: a :class:`~sb3_bomrl.MetaAlgorithm`
    :param env_or_task: environment or VecEnv that plays the task, or a task for the model's own environment
    :param n_episodes: episodes per adaptation step
    :param n_adaptation_steps: number of adaptation steps
    :param seed: of episodes and actions; drawn from the model's seed, or the system's entropy, if not given
    :param max_episode_steps: longest episode that is waited for
    :return: a model of the same kind whose policy is the adapted one
    """
    check_positive("n_episodes", n_episodes, integer=True)
    check_positive("n_adaptation_steps", n_adaptation_steps, integer=True)
    check_positive("max_episode_steps", max_episode_steps, integer=True, optional=True)
    env, task = as_task_env(model, env_or_task)
    collector = model.make_collector(env, np.random.default_rng(model.seed if seed is None else seed))
    params = stack(model.actor.params(), 1)
    for n_adapted in range(n_adaptation_steps):
        with torch_threads(model.n_rollout_threads):
            support = collector.collect_episodes([task], params, n_episodes, max_episode_steps=max_episode_steps)
        params = model.adapt_to(params, support, n_adapted)
    return _with_params(model, {name: value[0] for name, value in params.items()}, env)


def _with_params(model: Any, params: Params, env: VecEnv) -> Any:
    """Copy a model, with a policy and an environment of the copy's own."""
    adapted = copy(model)
    adapted.policy = deepcopy(model.policy)
    adapted.actor = Actor(adapted.policy)
    adapted.actor.load_params(params)
    adapted.task_generator = deepcopy(model.task_generator)
    adapted.rollout_buffer = copy(model.rollout_buffer)
    adapted._run = None
    adapted.ep_info_buffer = adapted.ep_success_buffer = None
    adapted.n_envs = env.num_envs  # any number will do unless the adapted model learns on
    OnPolicyAlgorithm.set_env(adapted, env)
    return adapted


def as_task_env(model: Any, env_or_task: Any) -> tuple[VecEnv, Task]:
    """
    Return a VecEnv to adapt in, and the task that each of its environments is to play.

    :param model: the model that adapts
    :param env_or_task: environment or VecEnv that plays the task (every environment the same one), or a task for the
        model's own environment
    :return: VecEnv seen through the model's normaliser, and its task (``None`` where the environment has no tasks)
    :raises ValueError: if a task is given and the model's environment cannot set it, the environment has no task yet,
        the spaces differ, or the statistics of the model's ``VecNormalize`` are not there
    """
    check_no_vector_env("env_or_task", env_or_task)
    if not isinstance(env_or_task, gym.Env | VecEnv):
        if model.env is None or not has_tasks(model.env):
            raise ValueError(
                f"env_or_task must be an environment, got {env_or_task!r}: the model has no environment with "
                "set_task(task) that could play it as a task"
            )
        return model.env, env_or_task
    env = as_vec_env(model, env_or_task)
    if not (has_tasks(env) and env.has_attr("get_task")):
        return env, None
    task = env.env_method("get_task", indices=[0])[0]
    if task is None:
        raise ValueError(
            "env_or_task must be an environment that plays a task, but its get_task() is None: call set_task"
        )
    return env, task


def as_vec_env(model: Any, env: GymEnv) -> VecEnv:
    """
    Return an environment as the model sees it; it need not play a task yet.

    :param model: the model
    :param env: environment or VecEnv
    :return: VecEnv seen through the model's normaliser
    :raises ValueError: if the spaces differ, or the statistics of the model's ``VecNormalize`` are not there
    """
    vec_env = model._wrap_env(env, model.verbose)
    check_for_correct_spaces(vec_env, model.observation_space, model.action_space)
    return _normalized_alike(vec_env, model)


def _normalized_alike(env: VecEnv, model: Any) -> VecEnv:
    """Show an environment's observations as the model saw them while it learned; rewards stay as they are."""
    like = model.get_vec_normalize_env()
    if unwrap_vec_normalize(env) is not None:
        return env
    if like is None:
        if normalizes_observations(model._normalizer_statistics):
            raise ValueError(
                "env_or_task must be normalised as the model's training environment was, by VecNormalize, whose "
                "statistics this model has lost: load it with env=VecNormalize(...)"
            )
        return env
    if not like.norm_obs:
        return env
    if like.venv.observation_space != env.observation_space:
        raise ValueError(
            f"env must have VecNormalize where the model's training environment has it, below its other wrappers, "
            f"with observations in {like.venv.observation_space}: got an env without it"
        )
    wrapped = VecNormalize(
        env,
        training=False,
        norm_reward=False,
        clip_obs=like.clip_obs,
        epsilon=like.epsilon,
        norm_obs_keys=like.norm_obs_keys,
    )
    wrapped.obs_rms = like.obs_rms
    return wrapped
