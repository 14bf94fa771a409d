"""Scores of a policy before and after adaptation, by the protocol of few-shot evaluation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.types import Params, Rollout, Task

AdaptFunction = Callable[[Params, Rollout], Params]
"""(current parameters, a rollout of them) -> adapted parameters."""

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


def episode_returns(rollout: Rollout) -> th.Tensor:
    """
    Mean undiscounted return per episode, of the rewards that count.

    :param rollout: any; an episode that was cut off counts with what it earned so far
    :return: (n_tasks,)
    """
    n_episodes = (rollout.episode_starts & rollout.mask).sum((1, 2))
    return (rollout.rewards * rollout.mask).sum((1, 2)) / n_episodes


def returns_per_episode(rollout: Rollout, n_episodes: int) -> np.ndarray:
    """
    Undiscounted return of every episode.

    :param rollout: whole episodes, equally many for every task
    :param n_episodes: episodes per task
    :return: (n_tasks, n_episodes)
    """
    return _sum_per_episode(rollout.rewards, rollout, n_episodes)


def lengths_per_episode(rollout: Rollout, n_episodes: int) -> np.ndarray:
    """
    Length of every episode.

    :param rollout: whole episodes, equally many for every task
    :param n_episodes: episodes per task
    :return: (n_tasks, n_episodes), in steps
    """
    return _sum_per_episode(th.ones_like(rollout.rewards), rollout, n_episodes)


def _sum_per_episode(values: th.Tensor, rollout: Rollout, n_episodes: int) -> np.ndarray:
    values, starts = values.double() * rollout.mask, rollout.episode_starts & rollout.mask
    # number the episodes of a task from 0, environment by environment
    values, starts = (x.transpose(1, 2).flatten(1) for x in (values, starts))
    number = starts.long().cumsum(1) - 1
    return th.zeros(len(values), n_episodes, dtype=th.double).scatter_add_(1, number, values).numpy()


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
    :return: returns, environment steps and parameters for k = 0 … K
    """
    history, scored = [params], []
    env_steps = [np.zeros(len(tasks), dtype=int)]
    for k in range(n_adaptation_steps + 1):
        scored.append(
            _score(
                collector.collect_episodes(tasks, history[-1], n_eval_episodes, deterministic), n_eval_episodes, measure
            )
        )
        if k < n_adaptation_steps:
            support = collector.collect_episodes(tasks, history[-1], n_episodes)
            history.append(adapt(history[-1], support))
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
    measured = None if measure is None else measure(rollout)
    return returns_per_episode(rollout, n_episodes), lengths_per_episode(rollout, n_episodes), measured
