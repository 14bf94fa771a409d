"""Scores of a model on the test tasks of a family."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.locomotion.methods import env_id
from sb3_bomrl import MetaAlgorithm, evaluate_adaptation, evaluate_trials, make_meta_vec_env, make_trial_vec_env
from sb3_bomrl.rollout.returns import returns_per_episode
from sb3_bomrl.types import Rollout, Task

N_ENVS_PER_TASK = 5
N_SCORES = 20
"""Adaptations of an evaluation of all tasks, at most, if its tasks are so few that each is adapted to repeatedly."""
PATH_STRIDE = 3
"""Paths are kept of every third task; of all steps, as some policies jump to and fro."""


class Plan(NamedTuple):
    """
    One evaluation.

    :param n_adaptations: K
    :param n_episodes: support episodes per task and adaptation
    :param n_eval_episodes: fresh episodes per task, policy and score
    :param max_tasks: see :func:`choose_tasks`
    :param keeps_paths: whether to keep the positions in an episode of some tasks, deterministic, after 0 … K
        adaptations; of Navigation2D, whose observations begin with them
    """

    n_adaptations: int
    n_episodes: int
    n_eval_episodes: int
    max_tasks: int | None = None
    keeps_paths: bool = False


def choose_tasks(family: str, max_tasks: int | None) -> list[Task]:
    """
    :param family: name of a task family
    :param max_tasks: largest number of adaptations, ``None`` for no limit
    :return: test tasks of the family, evenly spaced; one after the other as often as it takes for as many adaptations
        (:data:`N_SCORES` without a limit) where there are few, such as two directions
    """
    tasks = list(make_meta_vec_env(env_id(family), 1).get_attr("test_tasks")[0])
    n_repeats = max(1, (N_SCORES if max_tasks is None else max_tasks) // len(tasks))
    stride = 1 if max_tasks is None else -(-len(tasks) // max_tasks)
    return [task for task in tasks[::stride] for _ in range(n_repeats)]


def score_adaptation(model: MetaAlgorithm, env: VecEnv, tasks: Sequence[Task], plan: Plan) -> dict[str, Any]:
    """
    Mean undiscounted return of every task after 0 … K adaptations; both kinds of policy are scored on the same ones.

    :param model: adapts
    :param env: ``N_ENVS_PER_TASK`` environments per task
    :param tasks: test tasks
    :param plan: how
    :return: by kind of policy K + 1 lists of a number per task; the steps that the adaptations took, mean over tasks;
        paths if they are to be kept
    """
    curve = evaluate_adaptation(
        model, env, tasks, plan.n_adaptations, plan.n_episodes, plan.n_eval_episodes, deterministic=False, seed=0
    )
    collector = model.make_collector(env, np.random.default_rng(1))
    rollouts = [collector.collect_episodes(tasks, params, plan.n_eval_episodes, True) for params in curve.params]
    result = {
        "tasks": list(tasks),
        "deterministic": [_means(returns_per_episode(rollout, plan.n_eval_episodes)) for rollout in rollouts],
        "stochastic": [_means(returns) for returns in curve.returns],
        "adaptation_env_steps": np.round(curve.env_steps.mean(1), 1).tolist(),
    }
    if plan.keeps_paths:
        horizon = env.get_attr("horizon", indices=[0])[0]
        result["path_tasks"] = list(tasks)[::PATH_STRIDE]
        result["paths"] = [_paths(rollout, horizon) for rollout in rollouts]
    return result


def _means(returns: np.ndarray) -> list[float]:
    """(n_tasks, n_episodes) -> a number per task."""
    return np.round(returns.mean(1), 2).tolist()


def _paths(rollout: Rollout, horizon: int) -> Any:
    """Positions in the first episode of some tasks, (n_tasks, horizon, 2) as lists."""
    assert not isinstance(rollout.observations, dict)
    kept = rollout.observations[::PATH_STRIDE, :horizon, 0, :2]
    return np.round(kept.numpy().astype(float), 3).tolist()


def make_test_env(family: str, n_tasks: int, n_threads: int) -> VecEnv:
    """
    :param family: name of a task family
    :param n_tasks: number of test tasks
    :param n_threads: physics threads
    :return: ``N_ENVS_PER_TASK`` environments per task
    """
    return make_meta_vec_env(env_id(family), n_tasks * N_ENVS_PER_TASK, env_kwargs=physics(family, n_threads))


def physics(family: str, n_threads: int) -> dict[str, Any]:
    """
    :param family: name of a task family
    :param n_threads: physics threads
    :return: keyword arguments of the VecEnv
    """
    return {} if family == "Navigation2D" else {"n_threads": n_threads}


def score_trials(model: Any, family: str, tasks: Sequence[Task], plan: Plan, n_threads: int) -> dict[str, Any]:
    """
    The same for a recurrent policy: k adaptations are k episodes before the one that is scored.

    :param model: RL²
    :param family: name of a task family
    :param tasks: test tasks
    :param plan: how; ``n_episodes`` does not matter
    :param n_threads: physics threads
    :return: as :func:`score_adaptation`
    """
    n_envs, kwargs = len(tasks) * N_ENVS_PER_TASK, physics(family, n_threads)
    env = make_trial_vec_env(env_id(family), n_envs, plan.n_adaptations + 1, env_kwargs=kwargs)
    result: dict[str, Any] = {"tasks": list(tasks)}
    for seed, kind in enumerate(("stochastic", "deterministic")):
        curve = evaluate_trials(
            model, env, tasks, plan.n_adaptations, plan.n_eval_episodes, kind == "deterministic", seed=seed
        )
        result[kind] = [_means(returns) for returns in curve.returns]
        if kind == "stochastic":
            result["adaptation_env_steps"] = np.round(curve.env_steps.mean(1), 1).tolist()
    env.close()
    if plan.keeps_paths:
        result["path_tasks"] = list(tasks)[::PATH_STRIDE]
        result["paths"] = _trial_paths(model, family, result["path_tasks"], plan.n_adaptations + 1)
    return result


def _trial_paths(model: Any, family: str, tasks: Sequence[Task], n_episodes: int) -> Any:
    """Positions in the first, second … episode of a trial of every task, deterministic, as :func:`_paths`."""
    env = make_trial_vec_env(env_id(family), len(tasks), n_episodes)
    for index, task in enumerate(tasks):
        env.env_method("set_task", task, indices=[index])
    observations, state, starts, seen = env.reset(), None, np.ones(len(tasks), dtype=bool), []
    for _ in range(n_episodes * env.get_attr("horizon", indices=[0])[0]):
        seen.append(np.asarray(observations)[:, :2])
        actions, state = model.predict(observations, state, starts, deterministic=True)
        observations, _, starts, _ = env.step(actions)
    env.close()
    episodes = np.stack(seen).reshape(n_episodes, -1, len(tasks), 2).swapaxes(1, 2)
    return np.round(episodes.astype(float), 3).tolist()
