"""Torch threads: how many, and how the learning phase uses them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch as th

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """
    So many torch threads for this thread, meanwhile.

    :param n_threads: torch threads within one operation
    """
    threads = th.get_num_threads()
    th.set_num_threads(n_threads)
    try:
        yield
    finally:
        th.set_num_threads(threads)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], parallel: bool = True) -> list[Result]:
    """
    Call a function for several items at once, each in a thread whose operations are single-threaded.

    As many threads as torch has (``torch.set_num_threads``), so that inside of one of them a nested call runs in turn.
    Torch's own threads within an operation wait actively for the slowest one, thousands of times in a learning phase:
    on a core that another process uses as well, each wait lasts as long as the system keeps that thread off it.
    Threads that work on items of their own wait once, at the end, and what they compute does not depend on how many
    there are.

    :param function: releases Python's lock for most of its time, as torch's operations do, and changes nothing shared
    :param items: what to call it for
    :param parallel: ``False`` to call it for one item after the other after all
    :return: results in the order of the items
    """
    n_threads = th.get_num_threads()
    n_workers = min(n_threads, len(items)) if parallel else 1
    if n_workers < 2:
        return [function(item) for item in items]
    pool = ThreadPoolExecutor(n_workers, initializer=th.set_num_threads, initargs=(1,))
    # restored at the end, as a worker's number is also that of threads that start later
    with torch_threads(n_threads), pool:
        return list(pool.map(function, items))
