"""Chunks of tasks: what the learning phase holds in memory at once, and what its threads share out."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch as th

from sb3_bomrl.core.threads import map_in_threads, torch_threads
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch, Rollout

Result = TypeVar("Result")

ACTIVATIONS_AT_ONCE = 1_300_000
"""
Numbers that the networks of one chunk of tasks put out in one forward pass, at most; a single task may have more.

5 MB in single precision, and about ten times as much where the graph of a gradient is kept. Chunks of this size stay in
the last level of the cache, their memory is used again in place of being asked of the system anew, and there are enough
of them for all threads.
"""


class Chunks(NamedTuple):
    """
    A partition of the task axis, for the learning phase.

    :param tasks: slices of the task axis, in order
    :param parallel: let threads work on chunks of their own
    :param is_small: all tasks together are one small chunk, for which a single torch thread is fastest
    """

    tasks: list[slice]
    parallel: bool
    is_small: bool


def task_chunks(actor: Actor, batch: Batch, tasks_per_chunk: int | None = None) -> Chunks:
    """
    Cut the task axis into equal chunks. No task depends on another, so the chunks change results by rounding alone.

    :param actor: brings the size of its network
    :param batch: data of all tasks
    :param tasks_per_chunk: largest number of tasks per chunk; from :data:`ACTIVATIONS_AT_ONCE` if not given
    :return: the chunks
    """
    n_tasks, n_samples = batch.weights.shape
    is_small = batch.weights.numel() * actor.n_units <= ACTIVATIONS_AT_ONCE
    if tasks_per_chunk is None:
        tasks_per_chunk = ACTIVATIONS_AT_ONCE // (n_samples * actor.n_units)
    n_chunks = -(-n_tasks // max(1, tasks_per_chunk))
    bounds = [n_tasks * i // n_chunks for i in range(n_chunks + 1)]
    return Chunks([slice(*pair) for pair in pairwise(bounds)], can_parallelize(actor, batch), is_small)


def over_tasks(function: Callable[..., Result], *trees: Any, chunks: Chunks) -> Result:
    """
    Call a function on chunks of tasks, several at once where that pays, and join what it returns.

    :param function: takes as many trees as are given, and returns a tree; it changes nothing that others share
    :param trees: tensors with a leading task axis, and dictionaries, tuples and rollouts of such; ``None`` and numbers
        stay
    :param chunks: from :func:`task_chunks`
    :return: the function's tree for all tasks
    """
    with torch_threads(1 if chunks.is_small else th.get_num_threads()):
        parts = map_in_threads(
            lambda tasks: function(*(_take(tree, tasks) for tree in trees)), chunks.tasks, chunks.parallel
        )
    return parts[0] if len(parts) == 1 else _map_tree(lambda *tensors: th.cat(tensors), *parts)


def _take(tree: Any, tasks: slice) -> Any:
    """Tensors of some tasks, as views."""
    return _map_tree(lambda tensor: tensor[tasks], tree, of_rollout=lambda rollout: rollout.of_tasks(tasks))


def _map_tree(
    function: Callable[..., th.Tensor], *trees: Any, of_rollout: Callable[[Rollout], Rollout] | None = None
) -> Any:
    """Apply a function to the tensors at the same place of trees of the same shape."""
    first = trees[0]
    if first is None or isinstance(first, int):
        return first
    if isinstance(first, th.Tensor):
        return function(*trees)
    if isinstance(first, Rollout) and of_rollout is not None:
        return of_rollout(first)
    if isinstance(first, dict):
        return {key: _map_tree(function, *(tree[key] for tree in trees), of_rollout=of_rollout) for key in first}
    parts = [_map_tree(function, *branches, of_rollout=of_rollout) for branches in zip(*trees, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def can_parallelize(actor: Actor, batch: Batch) -> bool:
    """
    Return whether threads may work on chunks of their own.

    :param actor: one that is called by ``functional_call``, which swaps a module's parameters, may not be shared
    :param batch: data; a GPU computes one chunk after the other
    :return: whether they may
    """
    return actor.is_thread_safe and batch.weights.device.type == "cpu"


def sample_chunks(actor: Actor, n_samples: int) -> list[slice]:
    """
    Cut the samples of one set of parameters into chunks, for products with their Fisher matrix.

    :param actor: brings the size of its network
    :param n_samples: number of samples, at least 1
    :return: slices of the samples, in order
    """
    size = -(-n_samples // max(1, -(-n_samples * actor.n_units // ACTIVATIONS_AT_ONCE)))
    return [slice(start, start + size) for start in range(0, n_samples, size)]
