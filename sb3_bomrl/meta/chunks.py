"""Chunks of tasks: what the learning phase holds in memory at once, and what its threads share out."""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch as th

from sb3_bomrl.core.threads import map_in_threads, torch_threads
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch, Observations, Params

Result = TypeVar("Result")

ACTIVATIONS_AT_ONCE = 1_300_000
"""
Numbers that the networks of one chunk of tasks put out in one forward pass, at most; a single task may have more.

5 MB in single precision, and about ten times as much where the graph of a gradient is kept. Chunks of this size stay in
the last level of the cache, their memory is used again in place of being asked of the system anew, and there are enough
of them for all threads.
"""


def task_chunks(actor: Actor, batch: Batch, tasks_per_chunk: int | None = None) -> list[slice]:
    """
    Cut the task axis into equal chunks. No task depends on another, so the chunks change results by rounding alone.

    :param actor: brings the size of its network
    :param batch: data of all tasks
    :param tasks_per_chunk: largest number of tasks per chunk; from :data:`ACTIVATIONS_AT_ONCE` if not given
    :return: slices of the task axis, in order
    """
    n_tasks, n_samples = batch.weights.shape
    if tasks_per_chunk is None:
        tasks_per_chunk = ACTIVATIONS_AT_ONCE // (n_samples * actor.n_units)
    n_chunks = -(-n_tasks // max(1, tasks_per_chunk))
    bounds = [n_tasks * i // n_chunks for i in range(n_chunks + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def map_chunks(actor: Actor, batch: Batch, function: Callable[[slice], Result], chunks: list[slice]) -> list[Result]:
    """
    Call a function for every chunk, several at once where that pays.

    A single small chunk is computed with one torch thread, a single large one with all.

    :param actor: brings the network
    :param batch: data of all tasks
    :param function: of a chunk; changes nothing that others share
    :param chunks: as from :func:`task_chunks`
    :return: results in order
    """
    is_small = batch.weights.numel() * actor.n_units <= ACTIVATIONS_AT_ONCE
    with torch_threads(1 if is_small else th.get_num_threads()):
        return map_in_threads(function, chunks, shares_out(actor, batch))


def shares_out(actor: Actor, batch: Batch) -> bool:
    """
    Whether threads may work on chunks of their own.

    :param actor: one that is called by ``functional_call``, which swaps a module's parameters, may not be shared
    :param batch: data; a GPU computes one chunk after the other
    :return: whether they may
    """
    return actor.is_thread_safe and batch.weights.device.type == "cpu"


def sample_chunks(actor: Actor, n_samples: int) -> int:
    """
    Into how many chunks to cut the samples of one set of parameters for products with their Fisher matrix.

    :param actor: brings the size of its network
    :param n_samples: number of samples, at least 1
    :return: number of chunks, at least 1
    """
    return max(1, -(-n_samples * actor.n_units // ACTIVATIONS_AT_ONCE))


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
