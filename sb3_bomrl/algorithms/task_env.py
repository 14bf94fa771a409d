"""The environment that a model is to adapt in."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_bomrl.rollout.tasks import has_tasks
from sb3_bomrl.types import Task

if TYPE_CHECKING:
    from sb3_bomrl.saving.persistence import PersistentAlgorithm


def as_task_env(model: "PersistentAlgorithm", env_or_task: Any) -> tuple[VecEnv, Task]:
    """
    A VecEnv to adapt in, and the task that each of its environments is to play.

    :param model: the model that adapts
    :param env_or_task: environment or VecEnv that plays the task (every environment the same one), or a task for the
        model's own environment
    :return: VecEnv seen through the model's normaliser, and its task (``None`` where the environment has no tasks)
    :raises ValueError: if a task is given and the model's environment cannot set it, the environment has no task yet,
        the spaces differ, or the statistics of the model's ``VecNormalize`` are not there
    """
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


def as_vec_env(model: "PersistentAlgorithm", env: GymEnv) -> VecEnv:
    """
    An environment as the model sees it; it need not play a task yet.

    :param model: the model
    :param env: environment or VecEnv
    :return: VecEnv seen through the model's normaliser
    :raises ValueError: if the spaces differ, or the statistics of the model's ``VecNormalize`` are not there
    """
    vec_env = model._wrap_env(env, model.verbose)
    check_for_correct_spaces(vec_env, model.observation_space, model.action_space)
    return _normalized_alike(vec_env, model)


def _normalized_alike(env: VecEnv, model: "PersistentAlgorithm") -> VecEnv:
    """Show an environment's observations as the model saw them while it learned; rewards stay as they are."""
    like = model.get_vec_normalize_env()
    if unwrap_vec_normalize(env) is not None:
        return env
    if like is None:
        if model._normalizer_statistics is not None:
            raise ValueError(
                "env_or_task must be normalised as the model's training environment was, by VecNormalize, whose "
                "statistics this model has lost: load it with env=VecNormalize(...)"
            )
        return env
    wrapped = VecNormalize(
        env,
        training=False,
        norm_obs=like.norm_obs,
        norm_reward=False,
        clip_obs=like.clip_obs,
        epsilon=like.epsilon,
        norm_obs_keys=like.norm_obs_keys,
    )
    if like.norm_obs:
        wrapped.obs_rms = like.obs_rms
    return wrapped
