"""Vectorised environments from an environment id."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from sb3_bomrl.checks import check_choice, check_count
from sb3_bomrl.envs.registry import ENVS, EnvEntry, register_envs
from sb3_bomrl.vec_env.base import BatchTaskVecEnv

Backend = Literal["auto", "mujoco", "numpy", "dummy", "subproc"]

_MOST_ENVS = 2**20

_logger = logging.getLogger("sb3_bomrl")


def make_meta_vec_env(
    env_id: str,
    n_envs: int,
    backend: Backend = "auto",
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> VecEnv:
    """
    Make a monitored VecEnv in which every environment can have its own task.

    ``"auto"`` steps the families of this package all at once, by batched MuJoCo physics or vectorised NumPy, and puts
    anything else into a ``DummyVecEnv``.

    :param env_id: id of a registered environment
    :param n_envs: number of environments, from 1 to 2**20
    :param backend: ``"auto"``, ``"mujoco"``, ``"numpy"``, ``"dummy"`` or ``"subproc"``
    :param seed: seeds the first reset, ``seed + i`` for environment i; ``None`` leaves the seeds to chance
    :param env_kwargs: keyword arguments of the environment; ``"mujoco"`` and ``"numpy"`` take those of the family,
        and ``"mujoco"`` also ``n_threads``
    :return: ``VecMonitor`` around the fast VecEnv, or SB3's VecEnv of environments wrapped in ``Monitor``
    :raises ValueError: if an argument is not one of the above, or the backend cannot run the environment
    """
    check_choice("backend", backend, get_args(Backend))
    check_count("n_envs", n_envs, largest=_MOST_ENVS)
    register_envs()
    kwargs, entry, fast = dict(env_kwargs or {}), ENVS.get(_name(env_id)), fast_backend(env_id)
    if backend in ("mujoco", "numpy") and backend != fast:
        accepted = ", ".join(fast_id for fast_id, row in ENVS.items() if row.backend == backend)
        raise ValueError(f"env_id must be one of {accepted} for backend {backend!r}, got {env_id!r}")
    if entry is not None and backend in ("auto", fast):
        venv: VecEnv = VecMonitor(_make_batch(_name(env_id), entry, n_envs, kwargs))
    else:
        venv = _make_sb3_vec_env(env_id, n_envs, backend, kwargs)
    if seed is not None:
        venv.seed(seed)
    return venv


def fast_backend(env_id: str) -> str | None:
    """
    Return the backend that steps many environments of a family at once.

    :param env_id: id of an environment
    :return: ``"mujoco"`` or ``"numpy"``; ``None`` for environments of other packages
    """
    entry = ENVS.get(_name(env_id))
    return None if entry is None else entry.backend


def _name(env_id: str) -> str:
    """The id without Gymnasium's ``module:`` prefix."""
    return env_id.rsplit(":", 1)[-1]


def _make_sb3_vec_env(env_id: str, n_envs: int, backend: str, kwargs: dict[str, Any]) -> VecEnv:
    if _name(env_id) in ENVS and "horizon" in kwargs:
        kwargs.setdefault("max_episode_steps", kwargs["horizon"])
    makers: list[Callable[[], gym.Env]] = [partial(_make_env, gym.spec(env_id), kwargs)] * n_envs
    venv = SubprocVecEnv(makers) if backend == "subproc" else DummyVecEnv(makers)
    if backend == "auto":
        _logger.warning("%s cannot be stepped as a batch: using DummyVecEnv, which is slower", env_id)
    return venv


def _make_env(spec: EnvSpec, kwargs: dict[str, Any]) -> gym.Env:
    return Monitor(gym.make(spec, **kwargs))


def _make_batch(env_id: str, entry: EnvEntry, n_envs: int, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    spec = gym.spec(env_id)
    limit = kwargs.pop("max_episode_steps", None)
    if limit is not None and limit != -1:  # what gym.make would take
        kwargs["horizon"] = min(limit, kwargs.get("horizon", spec.max_episode_steps))
    make = _make_mujoco if entry.backend == "mujoco" else _make_numpy
    return make(entry, n_envs, spec, kwargs)


def _make_mujoco(entry: EnvEntry, n_envs: int, spec: EnvSpec, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    n_threads = kwargs.pop("n_threads", None)
    env: Any = load_env_creator(entry.entry_point)(**kwargs)
    env.spec = spec
    try:
        vec_env: Any = load_env_creator(entry.vec_env)
    except ImportError as exc:
        raise error.DependencyNotInstalled(
            "backend 'mujoco' needs mujoco>=4.0: run `pip install 'sb3-bomrl[mujoco]'`, or choose backend 'dummy'"
        ) from exc
    return vec_env(env, n_envs, n_threads, **entry.vec_env_kwargs)


def _make_numpy(entry: EnvEntry, n_envs: int, spec: EnvSpec, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    task, render_mode = kwargs.pop("task", None), kwargs.pop("render_mode", None)
    if render_mode is not None:
        raise ValueError(f"render_mode must be None for backend 'numpy', got {render_mode!r}; 'dummy' can render")
    vec_env: Any = load_env_creator(entry.vec_env)
    venv: BatchTaskVecEnv = vec_env(n_envs, spec=spec, **entry.vec_env_kwargs, **kwargs)
    if task is not None:
        venv.set_tasks([task], n_repeats=n_envs)
    return venv
