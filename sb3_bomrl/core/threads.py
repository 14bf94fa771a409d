"""Torch's threads, and calls that are spread over threads of Python."""

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
    Set the number of torch threads for the length of a context.

    :param n_threads: threads within one operation, at least 1
    """
    threads = th.get_num_threads()
    th.set_num_threads(n_threads)
    try:
        yield
    finally:
        th.set_num_threads(threads)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], parallel: bool) -> list[Result]:
    """
    Call a function for each item, in as many threads as torch has.

    Torch uses one thread for the operations of each call, so that a nested call runs its items in turn, and the
    results do not depend on the number of threads. Torch's own threads would wait for each other in every operation,
    which is slow on cores that other processes use; these wait once, at the end.

    :param function: releases Python's lock for most of its time, as torch's operations do, and changes nothing shared
    :param items: arguments of the calls
    :param parallel: ``False`` to call it for one item after the other
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
