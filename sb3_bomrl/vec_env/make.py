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

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.envs import register_envs
from sb3_bomrl.vec_env.base import BatchTaskVecEnv
from sb3_bomrl.vec_env.frozen_lake import FrozenLakeVecEnv
from sb3_bomrl.vec_env.navigation import NavigationVecEnv

Backend = Literal["auto", "mujoco", "numpy", "dummy", "subproc"]
FastMaker = Callable[[str, int, dict[str, Any]], BatchTaskVecEnv]

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
    :param n_envs: number of environments, at least 1
    :param backend: ``"auto"``, ``"mujoco"``, ``"numpy"``, ``"dummy"`` or ``"subproc"``
    :param seed: seeds the first reset, ``seed + i`` for environment i; ``None`` leaves the seeds to chance
    :param env_kwargs: keyword arguments of the environment; ``"mujoco"`` and ``"numpy"`` take those of the family,
        and ``"mujoco"`` also ``n_threads``
    :return: ``VecMonitor`` around the fast VecEnv, or SB3's VecEnv of environments wrapped in ``Monitor``
    :raises ValueError: if an argument is not one of the above, or the backend cannot run the environment
    """
    check_choice("backend", backend, get_args(Backend))
    check_positive("n_envs", n_envs, integer=True)
    register_envs()
    name, kwargs = _name(env_id), dict(env_kwargs or {})
    fast = fast_backend(env_id)
    if backend in ("mujoco", "numpy") and backend != fast:
        accepted = ", ".join(fast_id for fast_id, (kind, _) in _FAST.items() if kind == backend)
        raise ValueError(f"env_id must be one of {accepted} for backend {backend!r}, got {env_id!r}")
    if fast is not None and backend in ("auto", fast):
        venv: VecEnv = VecMonitor(_FAST[name][1](name, n_envs, _with_horizon(name, kwargs)))
    else:
        venv = _make_sb3_vec_env(env_id, n_envs, backend, kwargs)
    if seed is not None:
        venv.seed(seed)
    return venv


def fast_backend(env_id: str) -> str | None:
    """
    :param env_id: id of an environment
    :return: ``"mujoco"`` or ``"numpy"`` for the families that can be stepped all at once, else ``None``
    """
    name = _name(env_id)
    return _FAST[name][0] if name in _FAST else None


def _name(env_id: str) -> str:
    """The id without Gymnasium's ``module:`` prefix."""
    return env_id.rsplit(":", 1)[-1]


def _with_horizon(env_id: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Turn ``max_episode_steps``, which ``gym.make`` would take, into a horizon."""
    limit = kwargs.pop("max_episode_steps", None)
    if limit is not None and limit != -1:
        kwargs["horizon"] = min(limit, kwargs.get("horizon", gym.spec(env_id).max_episode_steps))
    return kwargs


def _make_sb3_vec_env(env_id: str, n_envs: int, backend: str, kwargs: dict[str, Any]) -> VecEnv:
    if backend == "auto":
        _logger.warning("%s cannot be stepped as a batch: using DummyVecEnv, which is slower", env_id)
    if _name(env_id) in _FAST and "horizon" in kwargs:
        kwargs.setdefault("max_episode_steps", kwargs["horizon"])
    makers: list[Callable[[], gym.Env]] = [partial(_make_env, gym.spec(env_id), kwargs)] * n_envs
    return SubprocVecEnv(makers) if backend == "subproc" else DummyVecEnv(makers)


def _make_env(spec: EnvSpec, kwargs: dict[str, Any]) -> gym.Env:
    return Monitor(gym.make(spec, **kwargs))


def _mujoco(env_id: str, n_envs: int, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    n_threads, spec = kwargs.pop("n_threads", None), gym.spec(env_id)
    env: Any = load_env_creator(str(spec.entry_point))(**kwargs)
    env.spec = spec
    try:
        from sb3_bomrl.vec_env.mujoco import MujocoTaskVecEnv
    except ImportError as exc:
        raise error.DependencyNotInstalled(
            "backend 'mujoco' needs mujoco>=4.0: run `pip install 'sb3-bomrl[mujoco]'`, or choose backend 'dummy'"
        ) from exc
    return MujocoTaskVecEnv(env, n_envs, n_threads)


def _numpy(make: Callable[..., BatchTaskVecEnv], env_id: str, n_envs: int, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    task, render_mode = kwargs.pop("task", None), kwargs.pop("render_mode", None)
    if render_mode is not None:
        raise ValueError(f"render_mode must be None for backend 'numpy', got {render_mode!r}; 'dummy' can render")
    venv = make(n_envs, spec=gym.spec(env_id), **kwargs)
    if task is not None:
        venv.set_tasks([task] * n_envs)
    return venv


_FAST: dict[str, tuple[str, FastMaker]] = {
    "bomrl/HalfCheetahVel-v0": ("mujoco", _mujoco),
    "bomrl/HalfCheetahDir-v0": ("mujoco", _mujoco),
    "bomrl/AntVel-v0": ("mujoco", _mujoco),
    "bomrl/AntDir-v0": ("mujoco", _mujoco),
    "bomrl/Walker2dRandParams-v0": ("mujoco", _mujoco),
    "bomrl/HopperRandParams-v0": ("mujoco", _mujoco),
    "bomrl/HumanoidDir-v0": ("mujoco", _mujoco),
    "bomrl/Navigation2D-v0": ("numpy", partial(_numpy, NavigationVecEnv)),
    "bomrl/FrozenLakeHighVariance-v0": ("numpy", partial(_numpy, partial(FrozenLakeVecEnv, family="high_variance"))),
    "bomrl/FrozenLakeLowVariance-v0": ("numpy", partial(_numpy, partial(FrozenLakeVecEnv, family="low_variance"))),
}
"""Backend and maker of every family that is stepped as a batch."""
