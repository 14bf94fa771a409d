"""Worker processes of a ``SubprocVecEnv``: one that dies is named, and nothing waits for the others."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from multiprocessing import connection
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

_PATIENCE = 5.0
"""Seconds that a process gets to end."""


S = TypeVar("S", bound=Any)
P = ParamSpec("P")
R = TypeVar("R")


def with_watched_workers(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """
    Run a method within :func:`watched_workers` of its object's ``env``.

    :param method: uses ``self.env``
    :return: the method
    """

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        with watched_workers(self.env):
            return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[S, P], R], call)


@contextmanager
def watched_workers(env: VecEnv | None) -> Iterator[None]:
    """
    Watch the worker processes of a ``SubprocVecEnv``; if one dies, end the others and close the environment.

    Without that, SB3 waits for answers that never come, in ``step`` where workers were forked, and in ``close``.

    :param env: any VecEnv, or ``None``; nothing happens for one without worker processes
    :raises RuntimeError: if a worker dies, with the number of its environment and its exit code
    """
    base = env.unwrapped if env is not None else None
    if not isinstance(base, SubprocVecEnv) or base.closed:
        yield
        return
    dead: list[int] = []
    receiver, sender = multiprocessing.Pipe(duplex=False)
    watcher = threading.Thread(target=_watch, args=(base.processes, receiver, dead), daemon=True)
    watcher.start()
    try:
        yield
    except (EOFError, ConnectionError) as error:
        watcher.join(_PATIENCE)
        if not dead:
            raise
        _close(base)
        reasons = ", ".join(f"environment {i} ({_reason(base.processes[i].exitcode)})" for i in dead)
        raise RuntimeError(
            f"env must keep its worker processes alive, but that of {reasons} ended: the other workers were ended too, "
            "and the environment is closed"
        ) from error
    finally:
        sender.close()
        watcher.join()
        receiver.close()


def _watch(processes: list[Any], receiver: connection.Connection, dead: list[int]) -> None:
    """Wait for a process to end, and end the others; return when the other end of the pipe is closed."""
    ready = connection.wait([receiver, *(process.sentinel for process in processes)])
    if receiver not in ready:
        dead += [i for i, process in enumerate(processes) if process.sentinel in ready]
        _kill(processes)


def _kill(processes: list[Any]) -> None:
    for process in processes:
        with suppress(OSError):  # it has just ended
            process.kill()


def close_in_time(env: VecEnv) -> None:
    """
    Close an environment; worker processes that do not end within seconds are killed.

    :param env: any VecEnv
    """
    base = env.unwrapped
    if not isinstance(base, SubprocVecEnv) or base.closed:
        env.close()
        return
    timer = threading.Timer(_PATIENCE, _kill, [base.processes])
    timer.start()
    try:
        env.close()
    except (EOFError, ConnectionError):  # a worker has ended before
        _kill(base.processes)
        _close(base)
    finally:
        timer.cancel()


def _close(env: SubprocVecEnv) -> None:
    """Close an environment whose workers were killed, as its ``close`` would if they answered."""
    for process in env.processes:
        process.join(_PATIENCE)
    for remote in env.remotes:
        remote.close()
    env.waiting, env.closed = False, True


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}, see its traceback above" if code else f"exit code {code}"
