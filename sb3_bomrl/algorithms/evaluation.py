"""Few-shot evaluation of a model on many tasks at once."""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.task_env import as_vec_env
from sb3_bomrl.algorithms.validation import check_positive
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.meta.evaluation import AdaptationCurve, Measure, adaptation_curve
from sb3_bomrl.rollout.tasks import TaskDistribution, has_tasks
from sb3_bomrl.types import Params, Rollout, Task


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
) -> AdaptationCurve:
    """
    Returns after 0 … K adaptations on test tasks, all tasks at once.

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
    :return: the curve, with everything per task
    :raises ValueError: if there are no tasks to test on, or ``env`` cannot set them
    """
    for name, value in (("n_episodes", n_episodes), ("n_eval_episodes", n_eval_episodes)):
        check_positive(name, value, integer=True)
    if n_adaptation_steps < 0:
        raise ValueError(f"n_adaptation_steps must be an integer of at least 0, got {n_adaptation_steps!r}")
    if not isinstance(env, gym.Env | VecEnv):
        raise ValueError(f"env must be an environment or VecEnv, got {env!r}")
    vec_env = as_vec_env(model, env)
    chosen = choose_tasks(vec_env, tasks)
    n_tasks = len(chosen)
    padded = chosen + [chosen[-1]] * (_padded_length(n_tasks, vec_env.num_envs) - n_tasks)
    collector = model.make_collector(vec_env, np.random.default_rng(seed))
    learning_threads = th.get_num_threads()

    def adapt(params: Params, rollout: Rollout) -> Params:
        with torch_threads(learning_threads):
            return model.adapt_to(params, rollout)

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
        tasks = TaskDistribution(vec_env).test_tasks()
        if tasks is None:
            raise ValueError("tasks must be given, got None: env has no test_tasks of its own")
    elif any(task is not None for task in tasks) and not has_tasks(vec_env):
        raise ValueError(f"tasks must be None for an env without set_task(task), got {list(tasks)!r}")
    if len(tasks) == 0:
        raise ValueError("tasks must hold at least one task, got none")
    return list(tasks)


def _padded_length(n_tasks: int, n_envs: int) -> int:
    """Smallest number of tasks, at least ``n_tasks``, that divides the environments or is a multiple of them."""
    if n_tasks >= n_envs:
        return -(-n_tasks // n_envs) * n_envs
    return next(n for n in range(n_tasks, n_envs + 1) if n_envs % n == 0)
