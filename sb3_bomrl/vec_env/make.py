"""Vectorised environments from an environment id."""

import importlib
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
from sb3_bomrl.envs.array_env import ArrayTaskEnv
from sb3_bomrl.envs.registry import ARRAY_VEC_ENV, ENVS, EnvEntry, register_envs
from sb3_bomrl.vec_env.array import ArrayTaskVecEnv
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

    ``"auto"`` steps the families of this package, and those derived from
    :class:`~sb3_bomrl.envs.array_env.ArrayTaskEnv`, all at once, by batched MuJoCo physics or vectorised NumPy, and
    puts anything else into a ``DummyVecEnv``.

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
    kwargs, fast = dict(env_kwargs or {}), fast_backend(env_id)
    if backend in ("mujoco", "numpy") and backend != fast:
        accepted = ", ".join(fast_id for fast_id, row in ENVS.items() if row.backend == backend)
        raise ValueError(f"env_id must be one of {accepted} for backend {backend!r}, got {env_id!r}")
    if fast is not None and backend in ("auto", fast):
        venv: VecEnv = VecMonitor(_make_batch(env_id, n_envs, kwargs))
    else:
        venv = _make_sb3_vec_env(env_id, n_envs, backend, kwargs)
    if seed is not None:
        venv.seed(seed)
    return venv


def fast_backend(env_id: str) -> str | None:
    """
    Return the backend that steps many environments of a family at once.

    :param env_id: id of an environment
    :return: ``"mujoco"`` or ``"numpy"``; ``None`` for environments that are stepped one by one
    """
    register_envs()
    entry = ENVS.get(_name(env_id))
    if entry is not None:
        return entry.backend
    return "numpy" if _is_array_family(_spec(env_id)) else None


def default_envs_per_task(env_id: str) -> int:
    """
    Return how many environments play one task unless a user says so.

    :param env_id: id of a registered environment
    :return: 20 where all are stepped as a batch, 4 where each is made and stepped by itself
    """
    return 4 if fast_backend(env_id) is None else 20


def check_no_vector_env(name: str, env: Any) -> None:
    """
    Refuse Gymnasium's own vectorised environments, which reset in another way.

    :param name: the argument
    :param env: its value
    :raises ValueError: if it is one
    """
    if isinstance(env, gym.vector.VectorEnv):
        raise ValueError(
            f"{name} must be an environment or a VecEnv of Stable-Baselines3, got Gymnasium's {type(env).__name__}: "
            "make the same environments by sb3_bomrl.make_meta_vec_env(env_id, n_envs)"
        )


def _is_array_family(spec: EnvSpec) -> bool:
    """True for a class derived from ``ArrayTaskEnv`` that is registered without wrappers."""
    try:
        creator = _creator(spec)
    except (ImportError, error.Error):  # gym.make says it better
        return False
    return isinstance(creator, type) and issubclass(creator, ArrayTaskEnv) and not spec.additional_wrappers


def _spec(env_id: str) -> EnvSpec:
    """The specification of an id; the module in front of it, if any, is imported to register it."""
    module, _, name = env_id.rpartition(":")
    if module and name not in gym.registry:
        importlib.import_module(module)
    return gym.spec(name)


def _creator(spec: EnvSpec) -> Any:
    """The class or function that makes an environment."""
    return load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point


def _name(env_id: str) -> str:
    """The id without Gymnasium's ``module:`` prefix."""
    return env_id.rsplit(":", 1)[-1]


def _make_sb3_vec_env(env_id: str, n_envs: int, backend: str, kwargs: dict[str, Any]) -> VecEnv:
    if _name(env_id) in ENVS and "horizon" in kwargs:
        kwargs.setdefault("max_episode_steps", kwargs["horizon"])
    makers: list[Callable[[], gym.Env]] = [partial(_make_env, _spec(env_id), kwargs)] * n_envs
    venv = SubprocVecEnv(makers) if backend == "subproc" else DummyVecEnv(makers)
    if backend == "auto":
        _logger.warning("%s cannot be stepped as a batch: using DummyVecEnv, which is slower", env_id)
    return venv


def _make_env(spec: EnvSpec, kwargs: dict[str, Any]) -> gym.Env:
    return Monitor(gym.make(spec, **kwargs))


def _make_batch(env_id: str, n_envs: int, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    spec, entry = _spec(env_id), ENVS.get(_name(env_id))
    limit = kwargs.pop("max_episode_steps", None)
    if limit is not None and limit != -1:  # what gym.make would take
        kwargs["horizon"] = min(limit, kwargs.get("horizon", spec.max_episode_steps or limit))
    if entry is None or entry.vec_env == ARRAY_VEC_ENV:
        return _make_array(n_envs, spec, kwargs)
    make = _make_mujoco if entry.backend == "mujoco" else _make_numpy
    return make(entry, n_envs, spec, kwargs)


def _make_array(n_envs: int, spec: EnvSpec, kwargs: dict[str, Any]) -> BatchTaskVecEnv:
    _check_no_rendering(kwargs)
    env: ArrayTaskEnv = _creator(spec)(**{**spec.kwargs, **kwargs})
    if spec.max_episode_steps is not None and "horizon" not in kwargs:
        env.horizon = min(env.horizon, spec.max_episode_steps)
    env.spec = spec
    return ArrayTaskVecEnv(env, n_envs)


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
    _check_no_rendering(kwargs)
    task = kwargs.pop("task", None)
    vec_env: Any = load_env_creator(entry.vec_env)
    venv: BatchTaskVecEnv = vec_env(n_envs, spec=spec, **entry.vec_env_kwargs, **kwargs)
    if task is not None:
        venv.set_tasks([task], n_repeats=n_envs)
    return venv


def _check_no_rendering(kwargs: dict[str, Any]) -> None:
    """Take ``render_mode`` out, which must be ``None``."""
    render_mode = kwargs.pop("render_mode", None)
    if render_mode is not None:
        raise ValueError(f"render_mode must be None for backend 'numpy', got {render_mode!r}; 'dummy' can render")
