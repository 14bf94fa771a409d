"""Few-shot evaluation of a model on many tasks at once."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.adaptation import as_vec_env
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_non_negative, check_positive, task_list
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.returns import lengths_per_episode, returns_per_episode
from sb3_bomrl.rollout.tasks import TaskSampler, has_tasks
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.types import Params, Rollout, Task
from sb3_bomrl.vec_env.make import check_no_vector_env

AdaptFunction = Callable[[Params, Rollout, int], Params]
"""(current parameters, a rollout of them, number of adaptations before) -> adapted parameters."""


Measure = Callable[[Rollout], np.ndarray]
"""A rollout -> (n_tasks, ...), something to know of it."""


class AdaptationCurve(NamedTuple):
    """
    Returns after k = 0 … K adaptations.

    :param tasks: the n_tasks test tasks
    :param returns: (K + 1, n_tasks, n_eval_episodes), undiscounted returns of fresh episodes
    :param lengths: (K + 1, n_tasks, n_eval_episodes), lengths of the same episodes
    :param env_steps: (K + 1, n_tasks), environment steps spent on adapting so far (evaluation not counted)
    :param params: parameters after each number of adaptations, stacked over tasks
    :param measured: (K + 1, n_tasks, ...), what ``measure`` made of the scored rollouts; ``None`` without one
    """

    tasks: list[Task]
    returns: np.ndarray
    lengths: np.ndarray
    env_steps: np.ndarray
    params: list[Params]
    measured: np.ndarray | None = None


def write_curves(path: Path, label: str, curves: Iterable[tuple[Any, AdaptationCurve]]) -> None:
    """
    Write curves as CSV, one row per curve, task and number of adaptations.

    The columns are the label, ``task``, ``adaptation_steps``, ``env_steps``, ``mean_return``, ``std_return`` and, where
    every curve has one measured number per task, ``measured``.

    :param path: the file
    :param label: name of the first column, such as ``timesteps`` or ``policy``
    :param curves: label of the curve and the curve
    :raises OSError: if the file cannot be written
    """
    curves = list(curves)
    is_measured = all(curve.measured is not None and curve.measured.ndim == 2 for _, curve in curves)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    measured = ["measured"] if is_measured else []
    writer.writerow([label, "task", "adaptation_steps", "env_steps", "mean_return", "std_return", *measured])
    for name, curve in curves:
        for i, task in enumerate(curve.tasks):
            for k, returns in enumerate(curve.returns[:, i]):
                row = [name, repr(task), k, curve.env_steps[k, i], returns.mean(), returns.std()]
                writer.writerow([*row, curve.measured[k, i]] if is_measured else row)  # type: ignore[index]
    write_atomically(path, lambda file: file.write(table.getvalue().encode()))


def adaptation_curve(
    collector: RolloutCollector,
    adapt: AdaptFunction,
    params: Params,
    tasks: Sequence[Task],
    n_adaptation_steps: int,
    n_episodes: int,
    n_eval_episodes: int,
    deterministic: bool,
    measure: Measure | None = None,
    max_episode_steps: int | None = None,
) -> AdaptationCurve:
    r"""
    Adapt 0 … K times, each time to fresh episodes of the current policy, and score every policy on fresh episodes.

    :param collector: plays the episodes
    :param adapt: the method's adaptation
    :param params: meta-parameters, stacked, each of shape (n_tasks, \*shape)
    :param tasks: test tasks
    :param n_adaptation_steps: K ≥ 0
    :param n_episodes: support episodes per task and adaptation
    :param n_eval_episodes: episodes per task that a policy is scored on
    :param deterministic: score the most probable actions; adaptation always samples
    :param measure: anything else to know of the scored rollouts
    :param max_episode_steps: as in :func:`evaluate_adaptation`
    :return: returns, environment steps and parameters for k = 0 … K
    """
    history, scored = [params], []
    env_steps = [np.zeros(len(tasks), dtype=int)]
    for k in range(n_adaptation_steps + 1):
        played = collector.collect_episodes(tasks, history[-1], n_eval_episodes, deterministic, max_episode_steps)
        scored.append(_score(played, n_eval_episodes, measure))
        if k < n_adaptation_steps:
            support = collector.collect_episodes(tasks, history[-1], n_episodes, False, max_episode_steps)
            history.append(adapt(history[-1], support, k))
            env_steps.append(env_steps[-1] + support.mask.sum((1, 2)).numpy())
    returns, lengths, measured = zip(*scored, strict=True)
    return AdaptationCurve(
        list(tasks),
        np.stack(returns),
        np.stack(lengths),
        np.stack(env_steps),
        history,
        None if measure is None else np.stack(measured),
    )


def _score(
    rollout: Rollout, n_episodes: int, measure: Measure | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    measured = None if measure is None else np.asarray(measure(rollout))
    if measured is not None and measured.shape[:1] != (rollout.n_tasks,):
        raise ValueError(f"measure must return an array of shape ({rollout.n_tasks}, ...), got shape {measured.shape}")
    return returns_per_episode(rollout, n_episodes), lengths_per_episode(rollout, n_episodes), measured


def evaluate_adaptation(
    model: MetaAlgorithm,
    env: GymEnv,
    tasks: Sequence[Task] | None = None,
    n_adaptation_steps: int = 3,
    n_episodes: int = 20,
    n_eval_episodes: int = 20,
    deterministic: bool = True,
    seed: int | None = 0,
    measure: Measure | None = None,
    max_episode_steps: int | None = None,
) -> AdaptationCurve:
    """
    Score a model on test tasks after 0 … K adaptations, all tasks at once.

    Per task: play ``n_episodes`` episodes with the current policy, adapt, score the result by the undiscounted return
    of ``n_eval_episodes`` fresh episodes; K times. The model is left as it is.

    :param model: meta-trained model
    :param env: environment or VecEnv to play in, apart from the one it trains in; any number of environments works
    :param tasks: test tasks; the environment's own ``test_tasks`` if not given
    :param n_adaptation_steps: K ≥ 0
    :param n_episodes: support episodes per task and adaptation
    :param n_eval_episodes: episodes per task that each policy is scored on
    :param deterministic: score the most probable actions (adaptation always samples)
    :param seed: of episodes and actions; the system's entropy if ``None``
    :param measure: function of the scored rollouts, (rollout) -> (n_tasks, ...), for whatever else is of interest
    :param max_episode_steps: give up on an episode that is longer; by default on one that is longer than the
        environment's time limit or, where it has none, than 10,000 steps
    :return: the curve, with everything per task
    :raises ValueError: if there are no tasks to test on, ``env`` cannot set them, or an episode does not end
    """
    for name, value in (("n_episodes", n_episodes), ("n_eval_episodes", n_eval_episodes)):
        check_positive(name, value, integer=True)
    check_non_negative("n_adaptation_steps", n_adaptation_steps, integer=True)
    check_positive("max_episode_steps", max_episode_steps, integer=True, optional=True)
    check_no_vector_env("env", env)
    if not isinstance(env, gym.Env | VecEnv):
        raise ValueError(f"env must be an environment or VecEnv, got {env!r}")
    vec_env = as_vec_env(model, env)
    chosen = choose_tasks(vec_env, tasks)
    n_tasks = len(chosen)
    padded = chosen + [chosen[-1]] * (_padded_length(n_tasks, vec_env.num_envs) - n_tasks)
    collector = model.make_collector(vec_env, np.random.default_rng(seed))
    learning_threads = th.get_num_threads()

    def adapt(params: Params, rollout: Rollout, n_adapted: int) -> Params:
        with torch_threads(learning_threads):
            return model.adapt_to(params, rollout, n_adapted)

    with torch_threads(model.n_rollout_threads):
        curve = adaptation_curve(
            collector,
            adapt,
            stack(model.actor.params(), len(padded)),
            padded,
            n_adaptation_steps,
            n_episodes,
            n_eval_episodes,
            deterministic,
            measure,
            max_episode_steps,
        )
    return AdaptationCurve(
        chosen,
        curve.returns[:, :n_tasks],
        curve.lengths[:, :n_tasks],
        curve.env_steps[:, :n_tasks],
        [{name: value[:n_tasks] for name, value in params.items()} for params in curve.params],
        None if curve.measured is None else curve.measured[:, :n_tasks],
    )


def choose_tasks(vec_env: VecEnv, tasks: Sequence[Task] | None) -> list[Task]:
    if tasks is None:
        tasks = TaskSampler(vec_env).test_tasks()
        if tasks is None:
            raise ValueError("tasks must be given, got None: env has no test_tasks of its own")
    elif has_tasks(vec_env):
        tasks = task_list("tasks", tasks)
    elif any(task is not None for task in tasks):
        raise ValueError(f"tasks must be None for an env without set_task(task), got {list(tasks)!r}")
    if len(tasks) == 0:
        raise ValueError("tasks must hold at least one task, got none")
    return list(tasks)


def _padded_length(n_tasks: int, n_envs: int) -> int:
    """Smallest number of tasks, at least ``n_tasks``, that divides the environments or is a multiple of them."""
    if n_tasks >= n_envs:
        return -(-n_tasks // n_envs) * n_envs
    return next(n for n in range(n_tasks, n_envs + 1) if n_envs % n == 0)
