"""Playing a model on a chosen task: reading the task, adapting to it, and checking that it can be shown."""

import ast
from collections.abc import Set

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.rollout.tasks import set_tasks
from sb3_bomrl.saving.normalizer import normalizes_observations
from sb3_bomrl.types import Task


def parse_task(text: str) -> Task:
    """
    Read a task from the command line.

    :param text: a Python literal, such as ``1.3``, ``-1`` or ``(0.4, -0.1)``
    :return: the task
    :raises ValueError: if it is none
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"task must be a Python literal such as 1.3 or (0.4, -0.1), got {text!r}") from None


def adapt_and_print(
    model: MetaAlgorithm, env: VecEnv, task: Task, n_episodes: int, n_steps: int, seed: int = 0
) -> MetaAlgorithm:
    """
    Adapt to a task, and print the return before and after every adaptation step.

    Returns are means of one episode per environment, of the most probable actions.

    :param model: meta-policy
    :param env: VecEnv of the family; its environments are given the task
    :param task: the task
    :param n_episodes: episodes per adaptation step
    :param n_steps: adaptation steps
    :param seed: of the first step's episodes; the next step has the next number
    :return: the adapted model
    :raises ValueError: if the model's observations are normalised by ``VecNormalize``, which ``env`` lacks
    """
    if normalizes_observations(model._normalizer_statistics) and unwrap_vec_normalize(env) is None:
        raise ValueError(
            "--task needs a model that normalises its observations itself, by NormalizedFlattenExtractor: this one was "
            "trained with VecNormalize"
        )
    set_tasks(env, [task], env.num_envs)
    print(f"Task {task}: return {_mean_return(model, env):.2f} before adaptation")
    for step in range(n_steps):
        model = model.adapt(env, n_episodes, seed=seed + step)
        after = _mean_return(model, env)
        print(f"Task {task}: return {after:.2f} after {step + 1} adaptation(s) of {n_episodes} episodes")
    return model


def _mean_return(model: MetaAlgorithm, env: VecEnv) -> float:
    return float(np.mean(evaluate_policy(model, env, n_eval_episodes=env.num_envs)[0]))


def check_renders(env_id: str, accepted: Set[str] = frozenset({"rgb_array"}), advice: str = "") -> None:
    """
    Require an environment that renders.

    :param env_id: the environment
    :param accepted: render modes, one of which it must have
    :param advice: end of the error message
    :raises ValueError: if it has none of them
    """
    modes = gym.make(env_id).metadata.get("render_modes", [])
    if not accepted & set(modes):
        raise ValueError(f"--env must be able to render, but {env_id} has the render modes {modes}{advice}")
