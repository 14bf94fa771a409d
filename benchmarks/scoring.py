"""Scores of a model on the test tasks of a family."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl import MetaAlgorithm, evaluate_adaptation, evaluate_trials, make_meta_vec_env, make_trial_vec_env
from sb3_bomrl.rollout.returns import returns_per_episode
from sb3_bomrl.types import Task

N_ENVS_PER_TASK = 5
N_SCORES = 20
"""Adaptations of an evaluation of all tasks where the tasks are fewer: each is then adapted to repeatedly."""
KINDS = ("stochastic", "deterministic")


class Plan(NamedTuple):
    """
    One evaluation.

    :param n_adaptations: K
    :param n_episodes: support episodes per task and adaptation
    :param n_eval_episodes: fresh episodes per task, policy and score
    :param max_tasks: see :func:`choose_tasks`
    """

    n_adaptations: int = 3
    n_episodes: int = 20
    n_eval_episodes: int = 20
    max_tasks: int | None = None


class Scores(NamedTuple):
    """
    Mean undiscounted returns.

    :param tasks: test tasks, one may be there repeatedly
    :param returns: by kind of policy (K + 1, n_tasks)
    """

    tasks: list[Task]
    returns: dict[str, np.ndarray]


def choose_tasks(env_id: str, max_tasks: int | None) -> list[Task]:
    """Return test tasks of a family, evenly spaced, and repeated where there are few, such as two directions."""
    tasks = list(make_meta_vec_env(env_id, 1).get_attr("test_tasks")[0])
    n_repeats = max(1, (N_SCORES if max_tasks is None else max_tasks) // len(tasks))
    stride = 1 if max_tasks is None else -(-len(tasks) // max_tasks)
    return [task for task in tasks[::stride] for _ in range(n_repeats)]


def score_adaptation(model: MetaAlgorithm, env: VecEnv, tasks: Sequence[Task], plan: Plan) -> Scores:
    """Score the policy after 0 … K adaptations; both kinds of policy are scored after the same ones."""
    curve = evaluate_adaptation(
        model, env, tasks, plan.n_adaptations, plan.n_episodes, plan.n_eval_episodes, deterministic=False, seed=0
    )
    collector = model.make_collector(env, np.random.default_rng(1))
    rollouts = [collector.collect_episodes(tasks, params, plan.n_eval_episodes, True) for params in curve.params]
    deterministic = [returns_per_episode(rollout, plan.n_eval_episodes).mean(1) for rollout in rollouts]
    stochastic = [returns.mean(1) for returns in curve.returns]
    return Scores(list(tasks), {"stochastic": np.array(stochastic), "deterministic": np.array(deterministic)})


def score_trials(model: Any, env_id: str, tasks: Sequence[Task], plan: Plan) -> Scores:
    """Score a recurrent policy: k adaptations are k episodes before the one that is scored."""
    n_envs = len(tasks) * N_ENVS_PER_TASK
    env = make_trial_vec_env(env_id, n_envs, plan.n_adaptations + 1, env_kwargs=physics(env_id))
    found = {}
    for seed, kind in enumerate(KINDS):
        curve = evaluate_trials(
            model, env, tasks, plan.n_adaptations, plan.n_eval_episodes, kind == "deterministic", seed=seed
        )
        found[kind] = np.array([returns.mean(1) for returns in curve.returns])
    env.close()
    return Scores(list(tasks), found)


def make_test_env(env_id: str, n_tasks: int) -> VecEnv:
    """Make :data:`N_ENVS_PER_TASK` environments per test task."""
    return make_meta_vec_env(env_id, n_tasks * N_ENVS_PER_TASK, env_kwargs=physics(env_id))


def physics(env_id: str) -> dict[str, Any]:
    """Return the VecEnv's keyword arguments: one physics thread, as runs share a machine one per core."""
    mujoco = ("HalfCheetah", "Ant", "Walker", "Hopper", "Humanoid")
    return {"n_threads": 1} if any(name in env_id for name in mujoco) else {}
