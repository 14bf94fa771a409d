"""Chunks of tasks: what the learning phase holds in memory at once."""

from itertools import pairwise

import torch as th

from sb3_bomrl.policies import Actor
from sb3_bomrl.types import Batch, Observations, Params

ACTIVATIONS_AT_ONCE = 6_000_000
"""
Numbers that the networks of one chunk of tasks put out in one forward pass, at most; a single task may have more.

24 MB in single precision. Chunks of this size stay in the last level of the cache, and their memory is used again
in place of being asked of the system anew.
"""

ACTIVATIONS_OF_HESSIAN = 2_500_000
"""The same where the graph of a gradient is kept, which holds about ten times as many numbers."""


def task_chunks(
    actor: Actor, batch: Batch, tasks_per_chunk: int | None = None, at_once: int = ACTIVATIONS_AT_ONCE
) -> list[slice]:
    """
    Cut the task axis into equal chunks. No task depends on another, so the chunks change results by rounding alone.

    :param actor: brings the size of its network
    :param batch: data of all tasks
    :param tasks_per_chunk: largest number of tasks per chunk; from ``at_once`` if not given
    :param at_once: numbers that the networks of one chunk put out in one forward pass
    :return: slices of the task axis, in order
    """
    n_tasks, n_samples = batch.weights.shape
    if tasks_per_chunk is None:
        tasks_per_chunk = at_once // (n_samples * actor.n_units)
    n_chunks = -(-n_tasks // max(1, tasks_per_chunk))
    bounds = [n_tasks * i // n_chunks for i in range(n_chunks + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def sample_chunks(actor: Actor, n_samples: int) -> int:
    """
    Into how many chunks to cut the samples of one set of parameters for products with their Fisher matrix.

    :param actor: brings the size of its network
    :param n_samples: number of samples, at least 1
    :return: number of chunks, at least 1
    """
    return max(1, -(-n_samples * actor.n_units // ACTIVATIONS_OF_HESSIAN))


def take_batch(batch: Batch, tasks: slice) -> Batch:
    """
    The data of some tasks, as views.

    :param batch: data of all tasks
    :param tasks: slice of the task axis
    :return: batch of those tasks
    """
    return Batch(_take(batch.observations, tasks), *(x[tasks] for x in batch[1:]))


def _take(observations: Observations, tasks: slice) -> Observations:
    if isinstance(observations, dict):
        return {key: value[tasks] for key, value in observations.items()}
    return observations[tasks]


def take_params(params: Params, tasks: slice) -> Params:
    r"""
    The parameters of some tasks, as views.

    :param params: stacked, each of shape (n_tasks, \*shape)
    :param tasks: slice of the task axis
    :return: parameters of those tasks
    """
    return {name: value[tasks] for name, value in params.items()}


def join_params(parts: list[Params]) -> Params:
    r"""
    Undo :func:`take_params`.

    :param parts: parameters of successive chunks
    :return: each of shape (n_tasks, \*shape)
    """
    return parts[0] if len(parts) == 1 else {name: th.cat([part[name] for part in parts]) for name in parts[0]}
