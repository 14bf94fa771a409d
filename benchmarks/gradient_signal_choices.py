"""Hypergradients that :mod:`benchmarks.gradient_signal` compares: functions of a model and a meta-batch."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch as th

from sb3_bomrl import BOMRL
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.core.linear_solve import SolveInfo
from sb3_bomrl.core.params import flatten, mean_over_tasks
from sb3_bomrl.meta.chunks import join_params, take_batch, take_params
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.types import Adaptation, Experience, Params, Rollout

ALL = slice(None)


class MetaBatch(NamedTuple):
    r"""
    What a meta-gradient is taken from.

    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param supports: pre-adaptation data
    :param adapted: the adaptation to them
    :param query: post-adaptation data
    """

    meta_params: Params
    supports: Sequence[Experience]
    adapted: Sequence[Adaptation]
    query: Experience


Choice = Callable[[BOMRL, MetaBatch], MetaGradient]


def own(model: MetaAlgorithm, data: MetaBatch) -> MetaGradient:
    """
    :param model: model
    :param data: meta-batch
    :return: the model's own meta-gradient
    """
    return model.meta_gradient(*data)


def with_settings(**settings: Any) -> Choice:
    """
    :param settings: arguments of :class:`~sb3_bomrl.BOMRL` that differ from the model's
    :return: the meta-gradient of a model with them
    """

    def choice(model: BOMRL, data: MetaBatch) -> MetaGradient:
        other = copy(model)
        vars(other).update(settings)
        return other.meta_gradient(*data)

    return choice


implicit = with_settings(hypergradient="implicit")


def with_query_part(n_parts: int) -> Choice:
    """
    :param n_parts: a divisor of the number of environments per task
    :return: ``implicit`` from the query episodes of the first of so many equal parts of each task's environments, as if
        no others had been played
    """

    def choice(model: BOMRL, data: MetaBatch) -> MetaGradient:
        n_envs = data.query.rollout.rewards.shape[2]
        if n_envs % n_parts:
            raise ValueError(f"n_parts must divide the {n_envs} environments of a task, got {n_parts}")
        part = take_rollout(data.query.rollout, ALL, slice(n_envs // n_parts))
        part = model.make_collector(model.env, model.task_generator).estimate(part)
        return implicit(model, data._replace(query=Experience(part, model.full_batch(part, is_query=True))))

    return choice


def clipped(model: BOMRL, data: MetaBatch) -> MetaGradient:
    """
    ``implicit`` with a hypergradient of no task longer than the median one.

    :param model: model
    :param data: meta-batch
    :return: mean of the clipped hypergradients, and their norms
    """
    tasks = single_task_gradients(model, data)
    gradients = clip_to_median(join_params([{k: v[None] for k, v in task.gradient.items()} for task in tasks]))
    solve = SolveInfo(*map(th.cat, zip(*(task.solve for task in tasks), strict=True)))
    return MetaGradient(mean_over_tasks(gradients), flatten(gradients).norm(dim=1), solve)


def single_task_gradients(model: BOMRL, data: MetaBatch) -> list[MetaGradient]:
    """
    :param model: model
    :param data: meta-batch
    :return: ``implicit`` of every task alone
    """
    return [implicit(model, take_tasks(data, slice(i, i + 1))) for i in range(data.query.rollout.n_tasks)]


def clip_to_median(gradients: Params) -> Params:
    r"""
    :param gradients: each of shape (n_tasks, \*shape)
    :return: the same, those that are longer than the median norm scaled down to it
    """
    norms = flatten(gradients).norm(dim=1)
    scale = (norms.quantile(0.5) / norms.clamp(min=th.finfo(norms.dtype).tiny)).clamp(max=1.0)
    return {name: th.einsum("n,n...->n...", scale, value) for name, value in gradients.items()}


def take_tasks(data: MetaBatch, tasks: slice) -> MetaBatch:
    """
    :param data: meta-batch
    :param tasks: slice of the task axis
    :return: the meta-batch of those tasks
    """

    def experience(whole: Experience) -> Experience:
        return Experience(take_rollout(whole.rollout, tasks, ALL), take_batch(whole.batch, tasks))

    def adaptation(whole: Adaptation) -> Adaptation:
        return Adaptation(take_params(whole.params, tasks), *(x[tasks] for x in whole[1:]))

    return MetaBatch(
        take_params(data.meta_params, tasks),
        [experience(support) for support in data.supports],
        [adaptation(adapted) for adapted in data.adapted],
        experience(data.query),
    )


def take_rollout(rollout: Rollout, tasks: slice, envs: slice) -> Rollout:
    """
    :param rollout: of observations that are tensors
    :param tasks: slice of the task axis
    :param envs: slice of the axis of each task's environments
    :return: the rollout of those tasks in those environments, as views where possible
    """
    taken = th.zeros_like(rollout.mask)
    taken[tasks, :, envs] = True
    parts = {name: value[tasks, :, envs] for name, value in rollout._asdict().items() if name != "final_observations"}
    return Rollout(final_observations=rollout.final_observations[taken[rollout.truncated]], **parts)


CHOICES: dict[str, Choice] = {
    "implicit": implicit,
    "implicit, half of the query episodes": with_query_part(2),
    "implicit, a quarter of the query episodes": with_query_part(4),
    "implicit, tasks clipped to the median norm": clipped,
    "implicit, 50 CG iterations": with_settings(hypergradient="implicit", hypergradient_cg_max_steps=50),
    "first_order": with_settings(hypergradient="first_order"),
    "unrolled": with_settings(hypergradient="unrolled"),
    "implicit_sampling": with_settings(hypergradient="implicit_sampling"),
}
"""Hypergradients that are compared, by name."""
